"""The program with a driver of access of another package: who may do what, over HTTP and gRPC, with several workers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
import pytest
from serving_models import ROW, SALT, WINDOWED, fill_state, flights, servable, windowed_model

from cumulant.core.network.gateway_token import token_for
from cumulant.core.traffic import TOKEN_HEADER
from cumulant.drivers.local.online import SqliteOnline
from cumulant.ports.access import RoleBinding
from cumulant.ports.log import UNDATED
from cumulant.serving.access.bindings_file import write_bindings
from cumulant.serving.access.refusal_log import read_records
from cumulant.serving.grpc.messages import message_class
from cumulant.serving.models.stores import open_log
from cumulant.serving.prediction_log.storage.log_reader import recent_predictions
from cumulant.serving.protocol.paths import ROUTES
from cumulant.testing.log import folder_log

PREDICT = "/v1/models/flight-late/predict"
DRIVER = """
    from cumulant.ports.driver import Driver

    roles = Driver(clients={"access": "acme_roles.clients:Roles"})
"""
#: `roles://ID=ACTION,...;ID=...`
CLIENTS = """
    from cumulant.ports.access import Decision

    class Roles:
        def __init__(self, url, scope=None):
            rules = url.removeprefix("roles://").split(";")
            self.allowed = {(who, action) for who, actions in (rule.split("=") for rule in rules)
                            for action in actions.split(",")}
            self.tenant = scope.tenant

        def check(self, principal, action, resource):
            names = {principal.id, *principal.groups}
            allowed = principal.tenant == resource.tenant == self.tenant and any(
                (name, action) in self.allowed for name in names)
            return Decision(allowed=allowed, policies=("roles",), hint="request a role")
"""
TOKENS = {who: f"0123456789abcdef-{who}" for who in ("ada", "bo", "scraper")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where the other package is installed."""
    place = tmp_path_factory.mktemp("packages")
    (place / "acme_roles").mkdir()
    for name, text in {"__init__": "", "driver": DRIVER, "clients": CLIENTS}.items():
        (place / "acme_roles" / f"{name}.py").write_text(textwrap.dedent(text))
    about = place / "acme_roles-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-roles\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[cumulant.drivers]\nroles = acme_roles.driver:roles\n")
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return servable(tmp_path_factory.mktemp("model") / "model")


@contextmanager
def server(installed, folder, *arguments):
    line = [sys.executable, "-m", "cumulant.serving", str(folder), "--http", "127.0.0.1:0", *map(str, arguments)]
    paths = os.pathsep.join(filter(None, (str(installed), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(line, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}, text=True)
    try:
        yield process, json.loads(process.stdout.readline())
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def bearer(who):
    return {"authorization": f"Bearer {TOKENS[who]}"}


def infer(address, who):
    """The code of an inference over gRPC."""

    async def call():
        async with grpc.aio.insecure_channel(address) as channel:
            request = message_class("ModelInferRequest")(model_name="flight-late").SerializeToString()
            method: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")  # type: ignore[call-arg]
            try:
                await method(request, metadata=tuple(bearer(who).items()))
            except grpc.aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

    return asyncio.run(call())


def test_roles_of_callers_hold_over_http_and_grpc_on_every_worker(installed, folder, tmp_path):
    tokens, place = tmp_path / "tokens", tmp_path / "refusals"
    tokens.write_text(f"{TOKENS['ada']} ada risk\n{TOKENS['bo']} bo\n{TOKENS['scraper']} service:scraper\n")
    tokens.chmod(0o600)
    access = "roles://risk=model.predict,server.show;service:scraper=server.show"
    options = ("--access", access, "--scope", "acme/late/prod", "--region", "north", "--token-file", tokens)
    options += ("--refusals", place, "--workers", 2, "--grpc", "127.0.0.1:0", "--model-control", "explicit")
    with server(installed, folder, *options) as (_, ready):
        url = ready["url"]
        for _ in range(6):  # connections of both workers
            assert httpx.post(url + PREDICT, json=ROW, headers=bearer("ada")).status_code == 200
            assert httpx.post(url + PREDICT, json=ROW, headers=bearer("bo")).status_code == 403
            assert httpx.get(f"{url}/metrics", headers=bearer("scraper")).status_code == 200
        load = f"{url}/v2/repository/models/flight-late/load"
        assert httpx.post(load, headers=bearer("ada")).status_code == 403
        assert httpx.get(f"{url}/v2/health/ready").status_code == 200
        refused, reached = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT  # it has no inputs
        assert [infer(ready["grpc"], who) for who in ("ada", "bo", "scraper")] == [reached, refused, refused]
    counts: dict[tuple[str, str, str], int] = {}
    log = open_log(str(place))
    for part in log.parts(UNDATED):
        with log.open(part) as stream:
            for record in read_records(stream.read()):
                refusal = record.refusal
                key = refusal.principal, refusal.action, refusal.reason
                counts[key] = counts.get(key, 0) + record.count
                assert (refusal.resource, refusal.policies) == ("flight-late", ("roles",))
    assert counts == {
        ("user:bo", "model.predict", "policy"): 7,
        ("service:scraper", "model.predict", "policy"): 1,
        ("user:ada", "model.load", "policy"): 1,
    }


def test_the_prediction_log_names_who_sent_each_request(installed, folder, tmp_path):
    """By the token, over HTTP; a request that is refused is no row."""
    tokens, place = tmp_path / "tokens", tmp_path / "log"
    tokens.write_text(f"{TOKENS['ada']} ada risk\n{TOKENS['bo']} service:batch risk\n{TOKENS['scraper']}\n")
    tokens.chmod(0o600)
    options = ("--access", "roles://risk=model.predict", "--token-file", tokens, "--log", place)
    with server(installed, folder, *options) as (_, ready):
        for who, status in (("ada", 200), ("bo", 200), ("ada", 200), ("scraper", 403)):
            answer = httpx.post(ready["url"] + PREDICT, json=ROW, headers=bearer(who) | {"x-principal": "user:eve"})
            assert answer.status_code == status
    rows = sorted(recent_predictions(folder_log(place)), key=lambda row: row.sequence)
    assert [row.principal for row in rows] == ["user:ada", "service:batch", "user:ada"]


def test_roles_of_a_project_hold_at_its_server(tmp_path, folder):
    pytest.importorskip("cedarpy", reason='pip install "cumulant[cedar]"')
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKENS['ada']} ada risk\n{TOKENS['bo']} bo\n{TOKENS['scraper']} service:scraper\n")
    tokens.chmod(0o600)
    bindings = write_bindings(
        tmp_path / "access",
        [
            RoleBinding(id="b0", actions=("model.predict",), groups=("risk",), environments=("prod",)),
            RoleBinding(id="b1", role="viewer", users=("service:scraper",), regions=("north",)),
            RoleBinding(id="b2", role="operator", users=("user:bo",), environments=("stage",)),
        ],
    )
    options = ("--access", "cedar://", "--access-bindings", bindings, "--scope", "acme/late/prod")
    options += ("--region", "north-1", "--token-file", tokens, "--grpc", "127.0.0.1:0")
    with server(tmp_path, folder, *options) as (_, ready):
        url = ready["url"]
        assert httpx.post(url + PREDICT, json=ROW, headers=bearer("ada")).status_code == 200
        refused = httpx.post(url + PREDICT, json=ROW, headers=bearer("bo"))
        assert refused.status_code == 403
        assert "the role developer or operator" in refused.text
        assert httpx.get(f"{url}/metrics", headers=bearer("scraper")).status_code == 200
        assert httpx.get(f"{url}/metrics", headers=bearer("ada")).status_code == 403
        assert infer(ready["grpc"], "scraper") == grpc.StatusCode.PERMISSION_DENIED
    bindings.write_text("[{}]")
    line = [sys.executable, "-m", "cumulant.serving", folder, "--access", "cedar://", "--access-bindings", bindings]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, "holds no role bindings" in ended.stderr) == (2, True)


def test_a_policy_can_allow_the_gateway_alone(installed, folder, tmp_path):
    key = tmp_path / "gateway.key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    options = ("--access", "roles://service:gateway=model.predict", "--behind-gateway", "--gateway-key-file", key)
    with server(installed, folder, *options) as (_, ready):
        url = ready["url"]
        forwarded = {TOKEN_HEADER: token_for(b"k" * 32, url)}
        assert httpx.post(url + PREDICT, json=ROW, headers=forwarded).status_code == 200
        assert httpx.post(url + PREDICT, json=ROW).status_code == 403
        assert httpx.post(url + PREDICT, json=ROW, headers={TOKEN_HEADER: "forged"}).status_code == 403


def test_a_driver_that_is_not_installed_stops_the_server(folder):
    line = [sys.executable, "-m", "cumulant.serving", str(folder), "--http", "127.0.0.1:0", "--access", "roles://a=b"]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, 'no driver for "roles://" is installed' in ended.stderr) == (2, True)


def test_no_path_returns_rows_of_earlier_requests_or_posts(tmp_path):
    """Such a read would have to be an event of personal data; a server has no journal, and no such path."""
    online, secret = SqliteOnline(f"sqlite://{tmp_path / 'online.db'}"), "N-SECRET-1"
    fill_state(online, WINDOWED, {"flights": flights(20)}, table="state")
    online.close()
    sample = {"hour": [1], "late_1d": [0.5]}
    folder = servable(tmp_path / "model", plan=WINDOWED, model=windowed_model(), sample=sample)
    salt = tmp_path / "salt"
    salt.write_bytes(SALT)
    salt.chmod(0o600)
    options = ("--online", f"sqlite://{tmp_path / 'online.db'}", "--state-table", "state", "--salt-file", salt)
    options += ("--log", tmp_path / "log", "--labels", tmp_path / "labels", "--model-control", "explicit")
    with server(tmp_path, folder, *options) as (_, ready):
        url = ready["url"]
        row = ROW | {"tail": secret, "sched_dep": "2013-04-01T06:00:00"}
        assert httpx.post(url + PREDICT, json=row, headers={"x-request-id": "r1"}).status_code == 200
        label = {"labels": [{"id": "r1", "label": True, "tail": secret}]}
        assert httpx.post(f"{url}/v1/labels", json=label).status_code == 200
        other = ROW | {"tail": "N2", "sched_dep": "2013-04-01T07:00:00"}
        failed = {}
        for route in ROUTES:
            path = route.template.replace("{model}", "flight-late").replace("{version}", "1")
            body = None if route.method == "GET" else other if route.action == "model.predict" else {}
            answer = httpx.request(route.method, url + path, json=body)
            if answer.status_code != 200:
                failed[path] = answer.text
            assert secret not in answer.text, path
        # Tensors and records have bodies of other forms, and nothing is posted to the others here.
        assert len(failed) <= 9, failed
