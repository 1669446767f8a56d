"""The gateway's routes after the desired state, or the gateway's own files, were lost or damaged."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import msgspec
import pytest

from cumulant.core.errors import UsageError
from cumulant.core.traffic import Arm, Routes
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.flows.deployment.versions import first_champion
from cumulant.flows.stack.desired_state import DesiredState, ServedVersion
from cumulant.flows.stack.gateway_check import is_reachable, routes_to
from cumulant.flows.stack.repair import set_aside_damaged, set_aside_status
from cumulant.project.file.spec import EnvironmentSpec


def served(version: str, port: int) -> ServedVersion:
    return ServedVersion(version=version, command=("serve",), port=port)


def arm(name: str, version: str, port: int) -> Arm:
    return msgspec.convert({"name": name, "version": version, "endpoints": [f"http://127.0.0.1:{port}"]}, Arm)


BOOK = DesiredState(
    model="m", champion="1", candidate="2", versions={one.version: one for one in (served("1", 1), served("2", 2))}
)


def test_without_routes_all_requests_go_to_the_champion():
    assert routes_to(BOOK, None, key="card") == Routes(
        model="m", revision=1, champion=arm("champion", "1", 1), key="card"
    )
    assert routes_to(DesiredState(model="m"), None, key=None) is None


def test_routes_to_the_servers_of_the_book_stay_as_they_are():
    both = Routes(
        model="m", revision=7, champion=arm("champion", "1", 1), candidate=arm("candidate", "2", 2), weight=10.0
    )
    promoted = Routes(model="m", revision=9, champion=arm("champion", "2", 2))
    outside = msgspec.structs.replace(both, candidate=arm("candidate", "http://elsewhere", 99))
    for routes in (both, promoted, outside):
        assert routes_to(BOOK, routes, key=None) is routes


def test_other_addresses_are_those_of_the_book():
    old = Routes(
        model="m", revision=7, champion=arm("champion", "1", 11), candidate=arm("candidate", "2", 12), weight=10.0
    )
    assert routes_to(BOOK, old, key=None) == Routes(
        model="m", revision=8, champion=arm("champion", "1", 1), candidate=arm("candidate", "2", 2), weight=10.0
    )


@pytest.mark.parametrize(("champion", "candidate"), [("7", None), ("1", "7"), ("7", "2")])
def test_versions_that_are_not_served_get_nothing(champion, candidate):
    old = Routes(
        model="m",
        revision=7,
        champion=arm("champion", champion, 1),
        weight=30.0 if candidate else 0.0,
        candidate=candidate and arm("candidate", candidate, 2),
    )
    assert routes_to(BOOK, old, key=None) == Routes(model="m", revision=8, champion=arm("champion", "1", 1))


@contextmanager
def answering(status: int):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("authorization")))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_): ...

    asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "through"), [(200, True), (401, True), (403, True), (404, False), (429, False), (503, False)]
)
def test_a_request_is_sent_through_the_gateway(monkeypatch, status, through):
    monkeypatch.setenv("CUMULANT_TOKEN", "long-enough-token-of-the-test\n")
    with answering(status) as (url, asked):
        assert is_reachable(url, "a model") is through
    assert asked == [("/v2/models/a%20model", "Bearer long-enough-token-of-the-test")]
    assert not is_reachable(url, "a model")


def project_in(state) -> SimpleNamespace:
    return SimpleNamespace(state=state, name="m", gateway=lambda: EnvoyTraffic(f"envoy://{state}/gateway"))


def every(project) -> list:
    return [*set_aside_status(project), *set_aside_damaged(project)]


@pytest.mark.parametrize("name", ["stack/desired_state.json", "stack/status.json", "gateway/state.json"])
@pytest.mark.parametrize("damage", [b"", b'{"model": 7}', b"\xff{"])
def test_a_damaged_file_is_set_aside(tmp_path, name, damage):
    project = project_in(tmp_path)
    project.gateway().apply(Routes(model="m", revision=1, champion=arm("champion", "1", 1)))
    whole = (tmp_path / "gateway" / "state.json").read_bytes()
    assert every(project) == []
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(damage)
    (aside,) = every(project)
    assert (aside.name.partition(".damaged-")[0], aside.read_bytes()) == ((tmp_path / name).name, damage)
    assert every(project) == []
    if "gateway" not in name:
        assert (tmp_path / "gateway" / "state.json").read_bytes() == whole


def test_a_project_of_another_name_than_what_was_served_is_refused(tmp_path):
    project = SimpleNamespace(state=tmp_path, name="copy", file=SimpleNamespace(environment=EnvironmentSpec()))
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack" / "desired_state.json").write_bytes(msgspec.json.encode(BOOK))
    with pytest.raises(UsageError, match="m was served here, and this project is called copy") as caught:
        first_champion(project, "", principal=None)
    assert "model: {name: m}" in str(caught.value.hint)
