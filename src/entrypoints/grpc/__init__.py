"""A gRPC server for the same service, and the messages it speaks."""
