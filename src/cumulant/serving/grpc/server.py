"""One worker's gRPC server."""

from __future__ import annotations

import grpc

from cumulant.core.errors import PortInUseError
from cumulant.serving.app import ServingApplication
from cumulant.serving.grpc.health import Health
from cumulant.serving.grpc.observed_calls import ObservingInterceptor
from cumulant.serving.grpc.reflection import Reflection
from cumulant.serving.grpc.service import Service, Shutdown
from cumulant.serving.sockets import address_of
from cumulant.serving.telemetry.observation import RequestObservation

#: calls of all connections at once; one more is refused
_MOST_CALLS = 4096
_PING_MS = 10_000


class GrpcServer:
    """Running server."""

    def __init__(self, server: grpc.aio.Server, port: int, shutdown: Shutdown) -> None:
        self._server, self._shutdown = server, shutdown
        self.port = port

    async def stop(self, patience: float) -> None:
        """Take no more calls, and end those that are not answered within `patience` seconds."""
        self._shutdown.set()
        await self._server.stop(patience)


async def start(
    app: ServingApplication, host: str, port: int, *, shared: bool = False, watch: RequestObservation | None = None
) -> GrpcServer:
    """Answer for `app` at the address; port 0 takes a free one. `shared`: other processes listen there as well.

    Messages are bounded by `app.body_limit`, after decompression too.

    Raises:
        PortInUseError: the address is taken.
    """
    options = [
        ("grpc.so_reuseport", int(shared)),
        ("grpc.max_receive_message_length", app.body_limit),
        ("grpc.max_send_message_length", -1),
        # Clients that keep idle connections alive are not sent away.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _PING_MS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _PING_MS),
    ]
    interceptors = None if watch is None else [ObservingInterceptor(watch)]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_MOST_CALLS, interceptors=interceptors)
    shutdown = Shutdown()
    handlers = [part(app, shutdown).handlers() for part in (Service, Health)]
    server.add_generic_rpc_handlers([*handlers, *Reflection(app, shutdown).handlers()])
    address = address_of(host, port)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        hint = "stop what listens there, or take a free port with --grpc 127.0.0.1:0"
        raise PortInUseError(f"{address} cannot be listened on", subject=address, hint=hint) from None
    await server.start()
    return GrpcServer(server, port, shutdown)
