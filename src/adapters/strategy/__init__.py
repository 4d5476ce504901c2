"""MindSpore's strategy files: how a job's parameters are cut, as protobuf or JSON."""
