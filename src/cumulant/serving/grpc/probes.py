"""gRPC health and reflection."""

from __future__ import annotations

from typing import Any

import grpc

from cumulant.core.errors import CumulantError, NotFoundError
from cumulant.serving.app import ServingApplication
from cumulant.serving.grpc.codec import parsed
from cumulant.serving.grpc.messages import HEALTH, INFERENCE, REFLECTION
from cumulant.serving.grpc.protos import Package
from cumulant.serving.grpc.service import Context, Ending, admit, refuse

_PACKAGES = (INFERENCE, HEALTH, *REFLECTION)
_SERVICES = tuple(service for package in _PACKAGES for service in package.services())
_INVALID, _NOT_FOUND = 3, 5


class Health:
    """`grpc.health.v1`, without a token: it is for probes."""

    def __init__(self, app: ServingApplication, ending: Ending) -> None:
        self._app, self._ending = app, ending
        self._parse = HEALTH.message("HealthCheckRequest").FromString
        self._response = HEALTH.message("HealthCheckResponse")

    def handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
        }
        return grpc.method_handlers_generic_handler(HEALTH.services()[0], methods)

    async def check(self, body: bytes, context: Context) -> bytes:
        try:
            service = parsed(self._parse, body).service
            if service and service not in _SERVICES:
                raise NotFoundError(f"there is no service {service[:100]}", subject=service[:100])
            return self._status()
        except CumulantError as error:
            await refuse(context, error)

    async def watch(self, body: bytes, context: Context) -> None:
        """The state now, and when it changes: a server is ready until it ends."""
        try:
            service = parsed(self._parse, body).service
        except CumulantError as error:
            await refuse(context, error)
        known = not service or service in _SERVICES
        await context.write(self._status() if known else self._said("SERVICE_UNKNOWN"))
        await self._ending.wait()
        if known:
            await context.write(self._said("NOT_SERVING"))

    def _status(self) -> bytes:
        return self._said("NOT_SERVING" if self._app.draining else "SERVING")

    def _said(self, status: str) -> bytes:
        return self._response(status=status).SerializeToString()  # type: ignore[no-any-return]


class Reflection:
    """`grpc.reflection`, of one version."""

    def __init__(self, app: ServingApplication, ending: Ending, package: Package) -> None:
        self._app, self._ending, self._package = app, ending, package
        self._parse = package.message("ServerReflectionRequest").FromString
        self._response = package.message("ServerReflectionResponse")

    def handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        methods = {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(self.info)}
        return grpc.method_handlers_generic_handler(self._package.services()[0], methods)

    async def info(self, _: object, context: Context) -> None:
        try:
            admit(self._app, context)
            while (body := await self._ending.or_read(context)) is not None:
                await context.write(self._answer(parsed(self._parse, body)).SerializeToString())
        except CumulantError as error:
            await refuse(context, error)

    def _answer(self, asked: Any) -> Any:
        found = self._response(valid_host=asked.host, original_request=asked)
        match asked.WhichOneof("choice"):
            case "list_services":
                for service in _SERVICES:
                    found.list_services_response.service.add(name=service)
            case "file_by_filename":
                self._describe(found, [one for one in _PACKAGES if one.file == asked.file_by_filename])
            case "file_containing_symbol":
                self._describe(found, [one for one in _PACKAGES if one.holds(asked.file_containing_symbol)])
            case "all_extension_numbers_of_type":
                if any(one.holds(asked.all_extension_numbers_of_type) for one in _PACKAGES):
                    found.all_extension_numbers_response.base_type_name = asked.all_extension_numbers_of_type
                else:
                    self._describe(found, [])
            case "file_containing_extension":
                self._describe(found, [])
            case _:
                found.error_response.error_code = _INVALID
                found.error_response.error_message = "the request asks for nothing"
        return found

    def _describe(self, found: Any, packages: list[Package]) -> None:
        if packages:
            found.file_descriptor_response.file_descriptor_proto.append(packages[0].described)
            return
        found.error_response.error_code = _NOT_FOUND
        found.error_response.error_message = "there is no such file, symbol or type here"
