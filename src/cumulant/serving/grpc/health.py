"""gRPC health, without a token: it is for probes.

The servicer of `grpcio-health-checking` is not used: it has to be notified of each change, keeps a watch open after the
server's end, and fails on a broken message.
"""

from __future__ import annotations

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from cumulant.core.errors import CumulantError, NotFoundError
from cumulant.serving.app import ServingApplication
from cumulant.serving.grpc.actions import HEALTH, SERVICES
from cumulant.serving.grpc.codec import parsed
from cumulant.serving.grpc.service import Context, Shutdown, refuse


class Health:
    """`grpc.health.v1.Health`: the state of the server, of which every service has the same."""

    def __init__(self, app: ServingApplication, shutdown: Shutdown) -> None:
        self._app, self._shutdown = app, shutdown

    def handlers(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """For `grpc.aio.Server.add_generic_rpc_handlers`."""
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
        }
        return grpc.method_handlers_generic_handler(HEALTH, methods)

    async def check(self, body: bytes, context: Context) -> bytes:
        try:
            service = parsed(HealthCheckRequest.FromString, body).service
            if service and service not in SERVICES:
                raise NotFoundError(f"there is no service {service[:100]}", subject=service[:100])
            return self._state()
        except CumulantError as error:
            await refuse(context, error)

    async def watch(self, body: bytes, context: Context) -> None:
        """Write the state, and again when it changes: a server is ready until it ends."""
        try:
            service = parsed(HealthCheckRequest.FromString, body).service
        except CumulantError as error:
            await refuse(context, error)
        if service and service not in SERVICES:
            await context.write(_response(HealthCheckResponse.SERVICE_UNKNOWN))
            await self._shutdown.wait()
            return
        await context.write(self._state())
        await self._shutdown.wait()
        await context.write(_response(HealthCheckResponse.NOT_SERVING))

    def _state(self) -> bytes:
        return _response(HealthCheckResponse.NOT_SERVING if self._app.draining else HealthCheckResponse.SERVING)


def _response(status: int) -> bytes:
    return HealthCheckResponse(status=status).SerializeToString()  # type: ignore[no-any-return]
