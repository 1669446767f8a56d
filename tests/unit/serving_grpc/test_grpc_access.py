"""Every gRPC method is checked against the policy in force."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message
from grpc_support import SERVICE, Code, doubled, message, over

from cumulant.ports.access import Decision, Principal
from cumulant.serving.access.callers import Callers, CallerToken
from cumulant.serving.access.control import AccessControl
from cumulant.serving.app import ServingApplication
from cumulant.serving.grpc.actions import METHOD_ACTIONS, REFLECTION, SHARED_MEMORY
from cumulant.serving.grpc.health import Health
from cumulant.serving.grpc.messages import message_class
from cumulant.serving.grpc.reflection import Reflection
from cumulant.serving.grpc.service import Service
from cumulant.serving.models.model import ModelSet, open_model

STREAM = f"{SERVICE}ModelStreamInfer"
REFLECTIONS = tuple(f"/{service}/ServerReflectionInfo" for service in REFLECTION)
HEALTH = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch")
UNARY = sorted(
    name.removeprefix(SERVICE)
    for name, action in METHOD_ACTIONS.items()
    if action is not None and name not in (STREAM, *REFLECTIONS)
)
TOKEN = "0123456789abcdef"


class Refusing:
    def __init__(self):
        self.requests = []

    def check(self, principal, action, resource):
        self.requests.append((principal, action, resource.kind, resource.name))
        return Decision(allowed=False, hint="request a role")


@pytest.fixture
def policy():
    return Refusing()


@pytest.fixture
def refusing(folders, policy):
    model = open_model(folders["double"])
    access = AccessControl(Callers([CallerToken(TOKEN, "user:ada")]), policy)
    yield ServingApplication(ModelSet([model]), access=access)
    model.close()


def ada(**options):
    return {"metadata": (("authorization", f"Bearer {TOKEN}"),), **options}


def request_of(name) -> Message:
    fields = message_class(f"{name}Request").DESCRIPTOR.fields_by_name
    named = {field: "double" for field in ("model_name", "name") if field in fields}
    return message(f"{name}Request", **named)  # type: ignore[no-any-return]


def test_every_method_of_the_server_declares_what_its_callers_do():
    handlers = [Service(None, None).handlers(), Health(None, None).handlers(), *Reflection(None, None).handlers()]  # type: ignore[arg-type]
    names = {name for handler in handlers for name in vars(handler)["_method_handlers"]}
    assert names == METHOD_ACTIONS.keys()
    open_to_all = {name for name, action in METHOD_ACTIONS.items() if action is None}
    refused_to_all = {SERVICE + name for name in SHARED_MEMORY}
    assert open_to_all - refused_to_all == {SERVICE + "ServerLive", SERVICE + "ServerReady", *HEALTH}


@pytest.mark.parametrize("name", UNARY)
def test_the_action_of_every_method_is_checked(refusing, policy, name):
    async def talk(client):
        await client.refused(Code.PERMISSION_DENIED, "user:ada may not do", name, request_of(name), **ada())

    over(refusing, talk)
    of_model = any(getattr(request_of(name), field, "") for field in ("model_name", "name"))
    resource = ("model", "double") if of_model else ("server", "cumulant")
    assert policy.requests == [(Principal("user:ada", via="http"), METHOD_ACTIONS[SERVICE + name], *resource)]


def test_names_that_callers_make_up_take_no_memory(refusing, folders):
    long = "x" * 1_000_000
    request = message("ModelInferRequest", model_name=long)

    async def refused(client):
        await client.refused(Code.PERMISSION_DENIED, "user:ada may not do", "ModelInfer", request, **ada())

    over(refusing, refused)
    assert refusing.access._decisions == {}
    free = ServingApplication(refusing.models)

    async def unknown(client):
        await client.refused(Code.NOT_FOUND, "", "ModelInfer", request)

    over(free, unknown)
    assert free.access._decisions == {}


def test_each_request_of_a_stream_is_checked(refusing, policy):
    async def talk(client):
        call = client.channel.stream_stream(STREAM)(iter([doubled().SerializeToString()] * 2), **ada())
        return [message_class("ModelStreamInferResponse").FromString(one) async for one in call]

    answers = over(refusing, talk)
    assert ["user:ada may not do model.predict to double" in answer.error_message for answer in answers] == [True, True]
    assert [action for _, action, *_ in policy.requests] == ["model.predict"]  # once: decisions are kept


@pytest.mark.parametrize("method", REFLECTIONS)
def test_the_description_of_the_services_is_checked(refusing, policy, method):
    async def talk(client):
        call = client.channel.stream_stream(method)(**ada())
        return await call.code()

    assert over(refusing, talk) == Code.PERMISSION_DENIED
    assert [request[1:] for request in policy.requests] == [("server.show", "server", "cumulant")]


def test_probes_are_open_to_all(refusing, policy):
    async def talk(client):
        for name in ("ServerLive", "ServerReady"):
            assert next(iter((await client.ask(name)).ListFields()))[1]
        await client.raw(HEALTH[0], b"")

    over(refusing, talk)
    assert policy.requests == []
