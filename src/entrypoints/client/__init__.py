"""A Python client of the gRPC server; its names are those of :mod:`glm3.client`."""
