"""Token, control, health, reflection and the program that serves gRPC."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_support import SERVICE, Code, doubled, message, over

from cumulant.core.errors import PortInUseError
from cumulant.serving.app import ServingApplication
from cumulant.serving.grpc.messages import HEALTH, REFLECTION
from cumulant.serving.grpc.server import start
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.models.repository import Repository
from cumulant.serving.workers.control import Control, WorkerDuties
from cumulant.serving.workers.fleet import SingleWorker


def test_a_token_is_needed_but_for_health(folders):
    model = open_model(folders["double"])
    app = ServingApplication(ModelSet([model]), token="sesame")

    async def talk(client):
        for metadata in ((), (("authorization", "Bearer sesam"),), (("authorization", "sesame"),)):
            for name in ("ModelInfer", "ServerMetadata", "RepositoryIndex"):
                await client.refused(Code.UNAUTHENTICATED, "token", name, b"", metadata=metadata)
        right = (("authorization", "Bearer sesame"),)
        assert len((await client.infer(doubled(), metadata=right)).outputs) == 1
        assert (await client.ask("ServerReady")).ready
        await client.raw("/grpc.health.v1.Health/Check", b"")
        for method in (SERVICE + "ModelStreamInfer", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"):
            call = client.channel.stream_stream(method)()  # nothing is sent: a write after the refusal would hide it
            assert await call.code() == Code.UNAUTHENTICATED

    over(app, talk)
    model.close()


def test_models_are_loaded_and_unloaded_where_control_is_on(folders):
    repository = Repository([str(folders["double"])])
    model = open_model(folders["double"])
    app = ServingApplication(ModelSet([model]))
    named = {"model_name": "double"}

    async def talk(client):
        await client.refused(Code.UNAVAILABLE, "starting", "RepositoryIndex", b"")

        async def put(models):
            app.models = models

        async def told():
            return app.series()

        staff = WorkerDuties(app.models, repository, open_model, put=put, series=told)
        fleet = SingleWorker(staff)
        app.join(fleet, Control(fleet, repository), False)
        for name in ("Load", "Unload"):
            asked = message(f"RepositoryModel{name}Request", **named)
            await client.refused(Code.PERMISSION_DENIED, "by request", f"RepositoryModel{name}", asked)
        app.join(fleet, Control(fleet, repository), True)
        await client.ask("RepositoryModelUnload", message("RepositoryModelUnloadRequest", **named))
        await client.refused(Code.NOT_FOUND, "double", "ModelInfer", doubled())
        (one,) = (await client.ask("RepositoryIndex")).models
        assert (one.name, one.version, one.state) == ("double", "3", "UNAVAILABLE")
        assert not (await client.ask("RepositoryIndex", message("RepositoryIndexRequest", ready=True))).models
        asked = message("RepositoryModelLoadRequest", **named)
        await client.ask("RepositoryModelLoad", asked)
        assert len((await client.infer(doubled())).outputs) == 1
        asked.parameters["config"].string_param = "{}"
        await client.refused(Code.INVALID_ARGUMENT, "parameters", "RepositoryModelLoad", asked)
        nope = message("RepositoryModelLoadRequest", model_name="nope")
        await client.refused(Code.NOT_FOUND, "nope", "RepositoryModelLoad", nope)

    over(app, talk)
    for one in app.models:
        one.close()


def test_health(app):
    check, watch = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
    asked, answer = HEALTH.message("HealthCheckRequest"), HEALTH.message("HealthCheckResponse")

    def status(body):
        return answer.FromString(body).status

    async def talk():
        server = await start(app, "127.0.0.1", 0)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            for service in ("", "inference.GRPCInferenceService"):
                assert status(await channel.unary_unary(check)(asked(service=service).SerializeToString())) == 1  # type: ignore[call-arg]
            for body, code in (
                (asked(service="x").SerializeToString(), Code.NOT_FOUND),
                (b"\xff", Code.INVALID_ARGUMENT),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(check)(body)  # type: ignore[call-arg]
                assert caught.value.code() == code
            watching = channel.unary_stream(watch)(b"")  # type: ignore[call-arg]
            unknown = channel.unary_stream(watch)(asked(service="x").SerializeToString())  # type: ignore[call-arg]
            assert (status(await watching.read()), status(await unknown.read())) == (1, 3)
            idle = channel.stream_stream(SERVICE + "ModelStreamInfer")()  # type: ignore[call-arg]
            await idle.write(doubled().SerializeToString())
            await idle.read()
            app.draining = True
            try:
                assert status(await channel.unary_unary(check)(b"")) == 2  # type: ignore[call-arg]
                # Neither a watch nor an idle stream holds up the end.
                await asyncio.wait_for(server.stop(120), 60)
                assert status(await watching.read()) == 2
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await idle.read()
                assert caught.value.code() == Code.UNAVAILABLE
            finally:
                app.draining = False

    asyncio.run(talk())


@pytest.mark.parametrize("package", REFLECTION, ids=lambda package: package.name)
def test_reflection(app, package):
    asked = package.message("ServerReflectionRequest")
    questions = [
        asked(list_services=""),
        asked(file_containing_symbol="inference.GRPCInferenceService"),
        asked(file_containing_symbol="inference.GRPCInferenceService.ModelInfer"),
        asked(file_by_filename="grpc/health/v1/health.proto"),
        asked(all_extension_numbers_of_type="inference.ModelInferRequest"),
        asked(file_containing_symbol="nope"),
        asked(file_containing_extension={"containing_type": "inference.ModelInferRequest", "extension_number": 1}),
        asked(),
    ]
    method = f"/{package.services()[0]}/ServerReflectionInfo"
    bodies = [one.SerializeToString() for one in questions]
    said = over(app, lambda client: client.stream(method, bodies))
    found = [package.message("ServerReflectionResponse").FromString(one) for one in said]
    services = {one.name for one in found[0].list_services_response.service}
    assert services >= {"inference.GRPCInferenceService", "grpc.health.v1.Health", package.services()[0]}
    for answer, name in zip(found[1:4], ("inference", "inference", "grpc.health.v1"), strict=True):
        (described,) = answer.file_descriptor_response.file_descriptor_proto
        assert FileDescriptorProto.FromString(described).package == name
    assert found[4].all_extension_numbers_response.base_type_name == "inference.ModelInferRequest"
    assert [one.error_response.error_code for one in found[5:]] == [5, 5, 3]
    assert found[5].original_request.file_containing_symbol == "nope"


def test_a_port_that_is_taken(app):
    async def run():
        server = await start(app, "127.0.0.1", 0)
        try:
            with pytest.raises(PortInUseError):
                await start(app, "127.0.0.1", server.port)
        finally:
            await server.stop(0)

    asyncio.run(run())


@pytest.mark.parametrize("workers", [1, 2])
def test_the_program_answers_over_grpc_and_says_where(folders, workers):
    command = [sys.executable, "-m", "cumulant.serving", str(folders["double"]), "--http", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--grpc", "127.0.0.1:0", "--workers", str(workers)], stdout=subprocess.PIPE, text=True
    ) as process:
        address = json.loads(process.stdout.readline())["grpc"]

        async def talk():
            for _ in range(6):
                options = [("grpc.use_local_subchannel_pool", 1)]
                async with grpc.aio.insecure_channel(address, options=options) as channel:
                    await channel.unary_unary(SERVICE + "ModelInfer")(doubled().SerializeToString())  # type: ignore[call-arg]

        asyncio.run(talk())
        taken = subprocess.run([*command, "--grpc", address], capture_output=True, text=True, timeout=60, check=False)
        assert (taken.returncode, "already in use" in taken.stderr, "--grpc" in taken.stderr) == (3, True, True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
