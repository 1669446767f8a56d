"""Places, rates and the order of servers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from cumulant.core.errors import LeaseHeldError, StorageError
from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm, Limits, Routes
from cumulant.drivers.local.gateway.bounds import Bucket, Gate
from cumulant.drivers.local.gateway.client import LocalTraffic
from cumulant.drivers.local.gateway.messages import Fault, passed_on
from cumulant.drivers.local.gateway.state import Folder, held
from cumulant.drivers.local.gateway.table import Table
from cumulant.ports.traffic import Door, Opening

ROUTES = Routes(
    model="m",
    revision=3,
    champion=Arm(name="champion", version="1", endpoints=("http://a:1", "http://b:1")),
    candidate=Arm(name="candidate", version="2", endpoints=("http://c:1", "http://d:1")),
)


def test_a_full_arm_makes_wait_then_refuses() -> None:
    async def run() -> None:
        gate = Gate(Limits(connections=1, pending=1))
        await gate.enter()
        second = asyncio.ensure_future(gate.enter())
        await asyncio.sleep(0)
        with pytest.raises(Fault) as caught:
            await gate.enter()
        assert caught.value.kind == "overflow"
        gate.leave()
        await second
        assert gate.inside == 1

    asyncio.run(run())


def test_who_gives_up_waiting_leaves_no_place_taken() -> None:
    async def run() -> None:
        gate = Gate(Limits(connections=1, pending=9))
        await gate.enter()
        waiting = [asyncio.ensure_future(gate.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        gate.leave()  # passes over the first, lets the second in
        waiting[1].cancel()  # just let in
        await asyncio.gather(*waiting, return_exceptions=True)
        assert gate.inside == 1
        gate.leave()
        assert gate.inside == 0

    asyncio.run(run())


def test_a_bucket_gives_a_second_at_once() -> None:
    bucket = Bucket(5)
    assert [bucket.take() for _ in range(7)] == [True] * 5 + [False] * 2
    assert all(Bucket(None).take() for _ in range(100))


def order(table: Table, routes: Routes = ROUTES) -> list[tuple[str, str]]:
    return [(arm, endpoint.url) for arm, endpoint in table.order(routes, CANDIDATE)]


def test_a_server_that_is_down_is_passed_over_and_the_other_arm_rescues() -> None:
    table = Table()
    table.change({"m": ROUTES})
    found = order(table)
    assert [arm for arm, _ in found] == [CANDIDATE, CANDIDATE, CHAMPION]
    table.endpoints["http://c:1"].ready = False
    assert order(table)[0] == (CANDIDATE, "http://d:1")
    assert [arm for arm, _ in order(table)] == [CANDIDATE, CHAMPION]
    table.endpoints["http://d:1"].failed(1, 60.0)
    assert {arm for arm, _ in order(table)} == {CHAMPION}
    for url in ("http://a:1", "http://b:1"):
        table.endpoints[url].refused = True
    assert [arm for arm, _ in order(table)] == [CANDIDATE, CANDIDATE, CHAMPION]
    once = msgspec.structs.replace(ROUTES, limits=Limits(retries=0))
    assert len(order(table, once)) == 1
    assert {arm for arm, _ in table.order(ROUTES, CANDIDATE, forced=True)} == {CANDIDATE}


def test_an_endpoint_is_ejected_after_failures_in_a_row() -> None:
    table = Table()
    table.change({"m": ROUTES})
    one = table.endpoints["http://a:1"]
    assert [one.failed(3, 60.0) for _ in range(2)] == [False, False]
    one.succeeded()
    assert [one.failed(3, 60.0) for _ in range(3)] == [False, False, True]
    assert one.ejected


def test_the_path_names_the_model() -> None:
    table = Table()
    assert table.find(b"/v1/models/m/predict") is None
    table.change({"m": ROUTES})
    assert table.find(b"/invocations") is table.models["m"]
    table.change({"m": ROUTES, "a b": msgspec.structs.replace(ROUTES, model="a b")})
    assert table.find(b"/v2/models/a%20b/infer?x=1") is table.models["a b"]
    assert table.find(b"/v2/models/m/versions/1/infer") is table.models["m"]
    assert table.find(b"/invocations") is None
    assert table.find(b"/v2/models/nope/infer") is None


def test_a_lower_revision_changes_nothing_in_the_table() -> None:
    table = Table()
    table.change({"m": ROUTES})
    table.change({"m": msgspec.structs.replace(ROUTES, revision=2, weight=50.0)})
    assert table.models["m"].routes == ROUTES


def test_headers_of_one_connection_stay_there() -> None:
    sent = [(b"connection", b"close, x-secret"), (b"x-secret", b"1"), (b"te", b"x"), (b"accept", b"y"), (b"mine", b"z")]
    assert passed_on(sent, without=frozenset({b"mine"})) == [(b"accept", b"y")]


def test_what_a_killed_writer_left_is_no_matter(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put(ROUTES)
    (tmp_path / ".routes.json.77-1").write_bytes(b'{"m": {"mod')
    assert folder.routes() == {"m": ROUTES}
    with pytest.raises(LeaseHeldError):
        folder.put(msgspec.structs.replace(ROUTES, revision=2))
    assert {path.name for path in tmp_path.iterdir()} == {"routes.json", "routes.lock"}


def test_routes_that_are_no_routes_are_told(tmp_path: Path) -> None:
    (tmp_path / "routes.json").write_bytes(b"[]")
    with pytest.raises(StorageError, match="routes cannot be read"):
        LocalTraffic(f"local://{tmp_path}").in_force("m")


def test_a_door_is_open_while_its_gateway_lives(tmp_path: Path) -> None:
    folder, door = Folder(tmp_path), Door(url="http://a:1", admin="http://a:2", pid=1)
    assert folder.door() is None
    with folder.open_door(door):
        assert folder.door() == Folder(tmp_path).door() == door
        left = (tmp_path / "door.json").read_bytes()
    assert folder.door() is None
    (tmp_path / "door.json").write_bytes(left)  # what a killed one leaves
    with held(tmp_path / "gateway.lock", wait=0):
        assert folder.door() is None


def test_the_program_says_all_of_its_opening(tmp_path: Path) -> None:
    command = LocalTraffic(f"local://{tmp_path}").program(Opening(http="127.0.0.1:1", key_file="k"))
    assert command[1:4] == ["-m", "cumulant.drivers.local.gateway", str(tmp_path)]
    assert command[-2:] == ["--key-file", "k"]
    assert CHAMPION not in command
