"""The folder of the protobuf package."""
