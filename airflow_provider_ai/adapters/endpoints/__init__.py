"""Model endpoints, over HTTP and over gRPC."""
