"""gRPC reflection: `grpcio-reflection`, also as `v1`, which it lacks and whose messages are the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToJson, Parse
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio  # type: ignore[attr-defined]

from cumulant.core.errors import CumulantError
from cumulant.serving.app import ServingApplication
from cumulant.serving.grpc.actions import REFLECTION, SERVICES, SHOW
from cumulant.serving.grpc.codec import parsed
from cumulant.serving.grpc.messages import FILE
from cumulant.serving.grpc.service import Context, Shutdown, identify, refuse


class Reflection(aio.ReflectionServicer):  # type: ignore[misc, name-defined]  # has no types
    """Describes the services of this server."""

    def __init__(self, app: ServingApplication, shutdown: Shutdown) -> None:
        super().__init__(SERVICES, _described())
        self._app, self._shutdown = app, shutdown

    def handlers(self) -> list[grpc.GenericRpcHandler[bytes, bytes]]:
        """For `grpc.aio.Server.add_generic_rpc_handlers`."""
        methods = {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(self.describe)}
        return [grpc.method_handlers_generic_handler(service, methods) for service in REFLECTION]

    async def describe(self, _: object, context: Context) -> None:
        try:
            self._app.access.check(identify(self._app, context, SHOW), SHOW)
            async for response in self.ServerReflectionInfo(self._requests(context), context):
                response.valid_host = response.original_request.host
                await context.write(response.SerializeToString())
        except CumulantError as error:
            await refuse(context, error)

    async def _requests(self, context: Context) -> AsyncIterator[Any]:
        while (body := await self._shutdown.or_read(context)) is not None:
            yield parsed(reflection_pb2.ServerReflectionRequest.FromString, body)

    def _file_containing_symbol(self, request: Any, fully_qualified_name: str) -> Any:
        """As of the library, which does not find methods."""
        service = fully_qualified_name.rpartition(".")[0]
        return super()._file_containing_symbol(request, service if service in SERVICES else fully_qualified_name)


def _described() -> DescriptorPool:
    """The files of all services, by their published names."""
    pool = DescriptorPool()
    pool.Add(FILE)
    for module in (health_pb2, reflection_pb2):
        file = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        file.name = file.name.replace("grpc_", "grpc/", 1)
        pool.Add(file)
    pool.Add(Parse(MessageToJson(file).replace("v1alpha", "v1"), FileDescriptorProto()))
    return pool
