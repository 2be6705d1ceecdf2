"""Edges: gRPC, stores, sockets."""
