"""The protocol over gRPC."""

from cumulant.serving.grpc.server import Server, start

__all__ = ["Server", "start"]
