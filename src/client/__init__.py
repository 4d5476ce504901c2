"""Ask a running `glm3 serve` over gRPC."""
