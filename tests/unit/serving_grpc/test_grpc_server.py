"""Token, control, health, reflection and the program that serves gRPC."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from grpc_support import SERVICE, Code, doubled, message, over

from cumulant.core.errors import PortInUseError
from cumulant.serving.access.callers import Callers, CallerToken
from cumulant.serving.access.control import AccessControl
from cumulant.serving.app import ServingApplication
from cumulant.serving.grpc import messages
from cumulant.serving.grpc.actions import REFLECTION
from cumulant.serving.grpc.server import start
from cumulant.serving.models.control import Control, SingleWorker, WorkerDuties
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.models.repository import Repository


def test_a_token_is_needed_but_for_health(folders):
    model = open_model(folders["double"])
    app = ServingApplication(ModelSet([model]), access=AccessControl(Callers([CallerToken("sesame")])))

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
    asked = HealthCheckRequest

    def status(body):
        return HealthCheckResponse.FromString(body).status

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


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection(app, version):
    asked, service = ServerReflectionRequest, f"grpc.reflection.{version}.ServerReflection"
    questions = [
        asked(list_services="", host="here"),
        asked(file_containing_symbol="inference.GRPCInferenceService"),
        asked(file_containing_symbol="inference.GRPCInferenceService.ModelInfer"),
        asked(file_by_filename="grpc/health/v1/health.proto"),
        asked(all_extension_numbers_of_type="inference.ModelInferRequest"),
        asked(file_containing_symbol="nope"),
        asked(file_containing_extension={"containing_type": "inference.ModelInferRequest", "extension_number": 1}),
        asked(),
    ]
    found = _reflect(app, service, questions)
    services = {one.name for one in found[0].list_services_response.service}
    assert services >= {"inference.GRPCInferenceService", "grpc.health.v1.Health", service}
    assert found[0].valid_host == "here"
    for answer, name in zip(found[1:4], ("inference", "inference", "grpc.health.v1"), strict=True):
        (described,) = answer.file_descriptor_response.file_descriptor_proto
        assert FileDescriptorProto.FromString(described).package == name
    assert found[4].all_extension_numbers_response.base_type_name == "inference.ModelInferRequest"
    assert [one.error_response.error_code for one in found[5:]] == [5, 5, 3]
    assert found[5].original_request.file_containing_symbol == "nope"
    assert found[2].original_request == questions[2]


def _reflect(app, service, questions):
    bodies = [one.SerializeToString() for one in questions]
    said = over(app, lambda client: client.stream(f"/{service}/ServerReflectionInfo", bodies))
    return [ServerReflectionResponse.FromString(one) for one in said]


def test_every_service_is_described_by_a_file_of_its_published_name(app):
    """As `grpcurl describe` asks for."""
    listing, *rest = _reflect(app, REFLECTION[0], [ServerReflectionRequest(list_services="")])
    assert not rest
    services = [one.name for one in listing.list_services_response.service]
    found = _reflect(app, REFLECTION[1], [ServerReflectionRequest(file_containing_symbol=name) for name in services])
    for service, answer in zip(services, found, strict=True):
        (described,) = answer.file_descriptor_response.file_descriptor_proto
        file, (package, _, name) = FileDescriptorProto.FromString(described), service.rpartition(".")
        assert (file.package, name in [one.name for one in file.service]) == (package, True)
        if package.startswith("grpc."):
            assert file.name == f"{package.replace('.', '/')}/{package.split('.')[1]}.proto"


def test_the_descriptors_are_those_of_the_proto_file(tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc", reason="pip install grpcio-tools").main
    folder = Path(messages.__file__).parent
    made = tmp_path / "made.binpb"
    assert protoc(["", f"-I{folder}", f"--descriptor_set_out={made}", "open_inference_grpc.proto"]) == 0
    assert made.read_bytes() == (folder / "open_inference_grpc.binpb").read_bytes()


def test_the_default_pool_is_left_to_other_clients_of_the_protocol():
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")


def test_a_port_that_is_taken(app):
    async def run():
        server = await start(app, "127.0.0.1", 0)
        try:
            with pytest.raises(PortInUseError):
                await start(app, "127.0.0.1", server.port)
        finally:
            await server.stop(0)

    asyncio.run(run())


@pytest.mark.slow
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
