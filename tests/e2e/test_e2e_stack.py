"""`cumulant up`, `ps`, `down`: every process killed at some moment, and nothing left behind at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import e2e_gateway
import e2e_shop
import httpx
import msgspec
import pytest
from e2e_support import opened, run, start

from cumulant.flows.ledger.processes import is_gone
from cumulant.flows.maintenance.cleanup import clean
from cumulant.flows.stack.desired_state import change_desired_state, read_desired_state
from cumulant.flows.stack.served_versions import folder_of
from cumulant.flows.stack.status import read_status
from cumulant.flows.training.train import train
from cumulant.serving.prediction_log.storage.scanning import scan
from cumulant.testing.log import folder_log

pytestmark = pytest.mark.slow

QUICK = e2e_shop.PROJECT.replace("  trials: 3\n", "  trials: 1\n").replace("  ensemble: 2\n", "")
STANDIN = QUICK + "environments:\n  local: {traffic: 'standin://'}\nserving: {http: '127.0.0.1:0'}\n"
ROW = {
    "order": 1,
    "ordered": "2024-03-02T10:00:00Z",
    "customer": "c001",
    "kind": "hat",
    "amount": 10.0,
    "express": True,
}
#: a supervisor whose controller only lives: what it decides is tested elsewhere
#: the loop of a controller that does nothing, in the folder of the stack
CONTROLLER = """
import time; from pathlib import Path
from cumulant.flows.release.controller.metrics_server import serve_metrics
with serve_metrics(Path({stack!r}), lambda: ""):
    time.sleep(3600)
"""
SUPERVISED = """
import asyncio, sys; from pathlib import Path
import msgspec; from cumulant.project.file.loading import load
from cumulant.flows.stack.stack_processes import build_stack
from cumulant.flows.stack.supervisor import StackSupervisor
with load(Path(sys.argv[1])) as project:
    found = msgspec.structs.replace(build_stack(project, "127.0.0.1:0"), controller=(sys.executable, "-c", sys.argv[2]))
    async def supervise():
        await StackSupervisor(found, project.gateway(), project.gateway()).run()
    asyncio.run(supervise())
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A trained project, whose gateway is a stand-in."""
    place = e2e_gateway.installed(tmp_path_factory.mktemp("driver"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        patch.setenv("PYTHONPATH", f"{place}:{os.environ.get('PYTHONPATH', '')}")
        folder = e2e_shop.make(tmp_path_factory.mktemp("stack") / "shop", rows=1500, project=STANDIN)
        with opened(folder) as project:
            train(project, principal=project.principal())
        yield folder


@pytest.fixture(autouse=True)
def everything_ends(shop):
    """Whatever a test leaves is ended; the next begins without a book and routes."""
    yield
    run(shop, "down")
    state = shop / ".cumulant"
    for path in (state / "stack" / "desired_state.json", state / "gateway" / "routes.json"):
        path.unlink(missing_ok=True)


def state_of(shop):
    return shop / ".cumulant"


def until(found, *, seconds=60.0):
    """What `found` gives once it gives something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.02)
    pytest.fail("it did not come to be")


def named(shop, name):
    status = read_status(state_of(shop))
    return next((one for one in status.children if one.name == name), None) if status else None


def ready(shop, name, *, other_than=0):
    return until(lambda: (one := named(shop, name)) and one.ready and one.pid != other_than and one)


def asked(url, name="r1"):
    return httpx.post(f"{url}/v1/models/returns/predict", json=ROW, headers={"x-request-id": name}, timeout=10)


def all_gone(processes):
    return lambda: all(is_gone(one) for one in processes)


def processes(shop):
    status = read_status(state_of(shop))
    return [one.process for one in status.children if one.process] + [status.supervisor]


def words(shop, *line, code):
    process = start(shop, *line)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    return json.loads(out)["error"]["message"]


@contextmanager
def supervised(shop):
    """A stack with a controller that lives."""
    run(shop, "up", "--detach")  # writes book and routes
    run(shop, "down")
    controller = CONTROLLER.format(stack=str(state_of(shop) / "stack"))
    process = subprocess.Popen([sys.executable, "-c", SUPERVISED, str(shop), controller], start_new_session=True)
    try:
        for name in ("server-1", "gateway", "controller"):
            ready(shop, name)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_up_serves_says_so_twice_and_down_leaves_nothing(shop):
    told = run(shop, "up", "--detach")
    assert told["running"]
    assert {one["name"]: one["ready"] for one in told["processes"] if one["kind"] != "controller"} == {
        "server-1": True,
        "gateway": True,
    }
    answer = asked(told["url"], "asked-here")
    assert answer.status_code == 200, answer.text
    assert answer.json()["version"] == "1"
    forged = {"x-request-id": "forged", "cumulant-arm": "candidate", "cumulant-request-id": answer.json()["request_id"]}
    path = "/v1/models/returns/predict"
    direct = httpx.post(named(shop, "server-1").url + path, json=ROW, headers=forged, timeout=10)
    assert direct.status_code == 200
    foreign = {"origin": "http://elsewhere.example"}
    refused = [httpx.post(named(shop, "server-1").url + path, json=ROW, headers=foreign, timeout=10) for _ in range(9)]
    assert [answer.status_code for answer in refused] == [403] * 9
    assert (state_of(shop) / "stack" / "gateway.key").stat().st_mode & 0o777 == 0o600
    assert f"process {told['supervisor']}" in words(shop, "up", code=3)
    shown = run(shop, "ps")
    assert shown["supervisor"] == told["supervisor"]
    assert shown["processes"][0]["url"] == named(shop, "server-1").url
    here = processes(shop)
    assert run(shop, "down")["ended"] >= 3
    assert all_gone(here)()
    left = {path.name for path in (state_of(shop) / "stack").iterdir()}
    assert left == {"desired_state.json", "logs"}
    assert run(shop, "ps") == {"running": False, "processes": []}
    assert run(shop, "down") == {"ended": 0}
    (logged,) = run(shop, "predictions", "show", answer.json()["request_id"])
    assert (logged["arm"], logged["shadow"], logged["caller_id"]) == ("champion", False, "asked-here")
    assert run(shop, "predictions", "show", "asked-here") == [logged]
    (logged,) = run(shop, "predictions", "show", direct.json()["request_id"])
    assert (logged["arm"], logged["shadow"], logged["caller_id"]) == ("", False, "forged")
    events = run(shop, "events", "list", "--kind", "access.refused")
    assert sum(event["data"]["count"] for event in events) == 9 > len(events)
    assert {(event["actor"], event["data"]["resource"], event["data"]["reason"]) for event in events} == {
        ("anonymous", "cumulant", "origin")
    }


def test_each_process_that_is_killed_comes_back_and_the_port_stays(shop):
    with supervised(shop):
        before = {name: ready(shop, name) for name in ("server-1", "gateway", "controller")}
        (state_of(shop) / "stack" / "gateway.key").unlink()
        for name, one in before.items():
            os.kill(one.pid, signal.SIGKILL)
            again = ready(shop, name, other_than=one.pid)
            assert again.restarts == 1
            assert again.url == one.url
            assert again.not_ready_since is None
        answer = asked(read_status(state_of(shop)).url)
        assert answer.status_code == 200
    (logged,) = run(shop, "predictions", "show", answer.json()["request_id"])
    assert logged["arm"] == "champion"


def test_a_candidate_is_served_at_once_and_ended_when_nobody_asks_for_it(shop):
    with supervised(shop), opened(shop) as project:
        first = ready(shop, "server-1")
        served = read_desired_state(project.state, "returns").versions["1"]
        other = msgspec.structs.replace(served, version="2", port=served.port + 1)

        def put(**changes):
            def change(book):
                return msgspec.structs.replace(
                    book, versions={**book.versions, "2": changes.pop("served", other)}, **changes
                )

            return change_desired_state(project.state, "returns", change)

        put(candidate="2")
        until(lambda: (one := named(shop, "server-2")) and one.pid)
        second = ready(shop, "server-2")
        assert second.version == "2"
        # Kept warm for a while, then not.
        put(candidate=None, served=msgspec.structs.replace(other, warm_until=datetime.now(UTC) + timedelta(hours=1)))
        time.sleep(1)
        assert named(shop, "server-2").pid == second.pid
        put(served=msgspec.structs.replace(other, warm_until=datetime.now(UTC) + timedelta(seconds=1)))
        until(lambda: named(shop, "server-2") is None)
        assert is_gone(second.process)
        assert named(shop, "server-1").pid == first.pid
        # What may come back is not cleaned away.
        clean(project, principal=project.principal(), dry_run=False)
        assert os.path.isdir(folder_of(served.command))


def test_nothing_outlives_a_killed_supervisor_and_up_begins_again(shop):
    run(shop, "up", "--detach", "--console", "127.0.0.1:0")
    assert httpx.get(f"{ready(shop, 'console').url}/v1/health/live").json() == {"live": True}
    here = processes(shop)
    os.kill(here[-1].pid, signal.SIGKILL)
    until(all_gone(here))
    assert run(shop, "ps")["running"] is False
    told = run(shop, "up", "--detach")
    assert asked(told["url"]).status_code == 200
    here = processes(shop)
    os.kill(here[-1].pid, signal.SIGKILL)
    run(shop, "down")
    assert all_gone(here)()
    assert not (state_of(shop) / "stack" / "status.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_in_the_foreground_everything_ends_with_the_command(shop, number):
    process = start(shop, "up")
    try:
        ready(shop, "gateway")
        here = processes(shop)
        os.kill(process.pid, number)
        process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    until(all_gone(here))
    until(lambda: not (state_of(shop) / "stack" / "status.json").exists())


def test_a_taken_port_a_damaged_book_and_a_server_that_cannot_start_are_told_in_words(shop):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"{address} is already in use" in words(shop, "up", "--http", address, code=3)
    assert "can be reached from other machines" in words(shop, "up", "--http", "0.0.0.0:0", code=2)
    assert "is not HOST:PORT" in words(shop, "up", "--http", "nowhere", code=2)
    run(shop, "up", "--detach")
    book = state_of(shop) / "stack" / "desired_state.json"
    whole = book.read_bytes()
    book.write_bytes(whole[:40])
    until(lambda: "desired_state.json cannot be read" in (run(shop, "ps")["trouble"] or ""))
    assert asked(read_status(state_of(shop)).url).status_code == 200
    run(shop, "down")
    assert "desired_state.json cannot be read" in words(shop, "up", code=1)
    gone = json.loads(whole)
    gone["versions"]["1"]["command"][3] = str(shop / "nowhere")
    book.write_text(json.dumps(gone))
    said = words(shop, "up", code=3)
    assert "server-1 has ended" in said
    assert "nowhere" in said
    assert run(shop, "ps") == {"running": False, "processes": []}
    assert 'no version of returns named "7"' in words(shop, "up", "returns/7", code=2)


def test_a_book_that_is_gone_is_made_again_and_requests_reach_its_servers(shop):
    run(shop, "up", "--detach")
    run(shop, "down")
    path = state_of(shop) / "stack" / "desired_state.json"
    port = json.loads(path.read_bytes())["versions"]["1"]["port"]
    path.unlink()
    with socket.create_server(("127.0.0.1", port)):  # so that the server gets another one than the routes name
        told = run(shop, "up", "--detach")
        assert json.loads(path.read_bytes())["versions"]["1"]["port"] != port
        assert asked(told["url"]).json()["version"] == "1"
        run(shop, "down")


def test_a_damaged_book_is_set_aside_and_made_again(shop):
    run(shop, "up", "--detach")
    run(shop, "down")
    path = state_of(shop) / "stack" / "desired_state.json"
    path.write_bytes(b"\xff{")
    assert "cannot be read" in words(shop, "up", "--detach", code=1)
    told = run(shop, "up", "--detach", "--repair")
    assert asked(told["url"]).json()["version"] == "1"
    (aside,) = path.parent.glob(f"{path.name}.damaged-*")
    assert aside.read_bytes() == b"\xff{"
    aside.unlink()
    run(shop, "down")


def test_a_status_that_cannot_be_written_stops_nobody(shop):
    told = run(shop, "up", "--detach")
    path = state_of(shop) / "stack" / "status.json"
    path.unlink()
    (path / "in the way").mkdir(parents=True)
    until(lambda: b"status cannot be written" in (path.parent / "logs" / "supervisor.log").read_bytes())
    assert asked(told["url"]).status_code == 200
    (path / "in the way").rmdir()
    path.rmdir()
    until(path.is_file)
    assert run(shop, "ps")["running"]


def test_what_served_serves_again_without_journal_and_registry(shop):
    run(shop, "up", "--detach")
    run(shop, "down")
    aside = shop / "aside"
    aside.mkdir()
    gone = [path for path in state_of(shop).iterdir() if path.name.startswith(("journal.db", "mlflow"))]
    assert gone
    for path in gone:
        path.rename(aside / path.name)
    try:
        told = run(shop, "up", "--detach")
        assert asked(told["url"]).json()["version"] == "1"
        run(shop, "down")
    finally:
        for path in gone:
            (aside / path.name).rename(path)
        aside.rmdir()


def test_new_data_reach_what_serves_by_up_and_by_restart(shop):
    """A lookup of a source that only files bring. Data that are refused keep nothing from being served."""
    path = shop / "data" / "prices.csv"
    row = ROW | {"ordered": "2024-06-01T10:00:00Z"}

    def newer(minute):
        path.write_text(f"{path.read_text().rstrip()}\nhat,2024-06-01 09:{minute}:00,{minute}\n")

    def age(told, customer):
        """Of the newest stored event that the answer used: of a new customer, months later, a price alone."""
        url, order = f"{told['url']}/v1/models/returns/predict", row | {"customer": customer, "order": int(customer)}
        return httpx.post(url, json=order, timeout=10).json().get("state_age")

    assert age(run(shop, "up", "--detach"), "90001") is None
    newer(15)
    told = run(shop, "up", "--restart")
    (note,) = told["notes"]
    assert note.startswith("version 1: stored features: state_")
    assert age(told, "90002") == 45 * 60
    assert named(shop, "server-1") is None
    run(shop, "down")
    newer(30)
    told = run(shop, "up", "--detach")
    assert told["notes"] == ["version 1 reads stored features of the newest data from now on"]
    assert age(told, "90003") == 30 * 60
    run(shop, "down")
    good = path.read_text()
    path.write_text("kind,changed\nhat,2024-06-01 09:45:00\n")
    try:
        told = run(shop, "up", "--detach")
        assert age(told, "90004") == 30 * 60
        (note,) = told["notes"]
        assert note.startswith("version 1: its stored features stay as they were: source prices")
    finally:
        path.write_text(good)  # rows that are gone again would be refused


def test_what_is_posted_while_a_server_is_replaced_is_not_forgotten(shop):
    """Its successor is ready before these rows come, and reads another table than the one that they are taken into."""
    path, url = shop / "data" / "prices.csv", run(shop, "up", "--detach")["url"]
    path.write_text(f"{path.read_text().rstrip()}\ncoat,2024-06-01 09:50:00,1\n")
    order = ROW | {"customer": "95000", "kind": "sock"}
    process, number = start(shop, "up", "--restart"), 95_000
    while not ((successor := named(shop, "server-1.1")) and successor.ready):
        assert process.poll() is None
        number += 1
        moment = f"{datetime(2024, 7, 1, tzinfo=UTC) + timedelta(minutes=number - 95_000):%Y-%m-%dT%H:%M:%SZ}"
        posted = {"source": "orders", "rows": [order | {"order": number, "ordered": moment}]}
        answer = httpx.post(f"{url}/v1/events", json=posted, timeout=10)
        assert answer.json().get("accepted") == 1, answer.text
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    later = f"{datetime.fromisoformat(moment) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    asked = order | {"order": number + 1, "ordered": later}
    assert httpx.post(f"{url}/v1/models/returns/predict", json=asked, timeout=10).json()["state_age"] == 3_600.0


def test_an_order_that_both_versions_score_is_counted_once(shop):
    """A mirrored row moves the state once: the next order of the customer sees one order more, not two."""
    run(shop, "up", "--detach")
    with opened(shop) as project:
        served = read_desired_state(project.state, "returns").versions["1"]
        other = msgspec.structs.replace(served, version="2", port=served.port + 1)
        change_desired_state(
            project.state,
            "returns",
            lambda book: msgspec.structs.replace(book, candidate="2", versions={**book.versions, "2": other}),
        )
    ready(shop, "server-2")

    def score(number, hour, url, **headers):
        row = ROW | {"order": number, "customer": "c-new", "ordered": f"2024-03-02T{hour:02}:00:00Z"}
        answer = httpx.post(f"{url}/v1/models/returns/predict", json=row, headers=headers, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()["probability"]

    for number in range(3):
        score(7000 + number, number, served.endpoint)
        score(7000 + number, number, other.endpoint, **{"cumulant-shadow": "1"})
    both = score(7100, 10, served.endpoint), score(7100, 10, other.endpoint, **{"cumulant-shadow": "1"})
    assert both[0] == both[1]
    # The log of rows has heard of each once, whoever is asked.
    rows = [ROW | {"order": 7000 + n, "customer": "c-new", "ordered": f"2024-03-02T{n:02}:00:00Z"} for n in range(3)]
    for url in (served.endpoint, other.endpoint):
        told = httpx.post(f"{url}/v1/events", json={"source": "orders", "rows": rows}, timeout=10).json()
        assert (told["accepted"], told["duplicates"]) == (0, 3)


def copied(shop, copy):
    """The whole folder, state and all, as a backup or `cp -r` takes it."""
    if copy.exists():
        shutil.rmtree(copy)
    shutil.copytree(shop, copy, symlinks=True)
    return copy


def logged(shop):
    """Rows of the prediction log, and when the stored features were written last."""
    state = state_of(shop)
    parts = sorted(path.name for path in (state / "predictions").glob("date=*/*.parquet"))
    return parts, [(path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(state.glob("online.db*"))]


def test_a_copy_of_a_running_project_ends_and_lists_nothing_of_the_original(shop, tmp_path):
    told = run(shop, "up", "--detach")
    here = processes(shop)
    copy = copied(shop, tmp_path / "copy")
    assert run(copy, "ps") == {"running": False, "processes": []}
    assert run(copy, "down") == {"ended": 0}
    other = run(copied(shop, copy), "up", "--detach")
    try:
        assert other["url"] != told["url"]
        assert f"a copy of {state_of(shop)}" in other["notes"][0]
        assert "notes" not in told
        assert asked(other["url"]).status_code == 200
        assert {one.pid for one in processes(copy)}.isdisjoint(one.pid for one in here)
        ports = [read_desired_state(state_of(one), "returns").versions["1"].port for one in (shop, copy)]
        assert ports[0] != ports[1]
    finally:
        run(copy, "down")
    assert not any(map(is_gone, here)), "the original serves through it all"
    assert run(shop, "ps")["running"]
    assert asked(told["url"]).status_code == 200


def test_a_copy_writes_into_its_own_log_and_online_store(shop, tmp_path):
    run(shop, "up", "--detach")
    run(shop, "down")
    copy = copied(shop, tmp_path / "copy")
    before, own = logged(shop), logged(copy)
    told = run(copy, "up", "--detach")
    try:
        assert asked(told["url"], "of the copy").status_code == 200
        rows = [ROW | {"order": 9100, "customer": "c-copy"}]
        url = read_desired_state(state_of(copy), "returns").versions["1"]
        answer = httpx.post(f"{url.endpoint}/v1/events", json={"source": "orders", "rows": rows}, timeout=10)
        assert answer.json()["accepted"] == 1
    finally:
        run(copy, "down")
    assert logged(shop) == before
    assert set(logged(copy)[0]) > set(own[0])
    assert str(shop) not in " ".join(read_desired_state(state_of(copy), "returns").versions["1"].command)


@contextmanager
def under_load(url):
    """The caller's names of requests that were answered, added to while the block runs; one that fails ends the test."""
    answered, failed, ended = [], [], threading.Event()

    def ask():
        while not ended.is_set():
            name = f"load-{len(answered)}"
            try:
                status = asked(url, name).status_code
            except httpx.HTTPError as error:
                status = repr(error)
            (answered if status == 200 else failed).append(name if status == 200 else status)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answered
    finally:
        ended.set()
        thread.join()
    assert failed == []


def test_a_backup_of_what_runs_is_served_elsewhere(shop, tmp_path):
    told = run(shop, "up", "--detach")
    with under_load(told["url"]) as answered:
        until(lambda: len(answered) > 20)
        before = list(answered)
        done = run(shop, "backup", str(tmp_path / "shop.tar"))
    folder = tmp_path / "elsewhere" / "shop"
    restored = run(tmp_path, "restore", str(tmp_path / "shop.tar"), str(folder))
    assert f"a copy of {state_of(shop)}" in restored["notes"][0]
    assert run(folder, "events", "verify", "--head", done["head"]["hash"])["holds"]
    assert [version["version"] for version in run(folder, "models", "list")] == ["1"]
    rows = folder.parent / "rows.jsonl"
    rows.write_text(json.dumps(ROW))
    one, other = (run(where, "predict", str(rows)) for where in (shop, folder))
    assert other["answers"] == one["answers"]
    logged = (
        scan(folder_log(state_of(folder) / "predictions"))
        .dataset.to_table(columns=["caller_id"])["caller_id"]
        .to_pylist()
    )
    assert set(before) <= set(logged)
    other = run(folder, "up", "--detach")
    try:
        assert other["url"] != told["url"]
        assert asked(other["url"]).status_code == 200
        assert asked(told["url"]).status_code == 200
    finally:
        run(folder, "down")


def process_events(shop):
    with opened(shop) as project:
        found = project.journal().events(kinds=("stack.process_started", "stack.process_ended"))
        return [(one.kind.partition("_")[2], one.data["name"], one.data["cause"]) for one in found]


def test_every_start_and_end_of_a_process_is_an_event_with_its_cause(shop):
    before = len(process_events(shop))
    run(shop, "up", "--detach")
    os.kill(ready(shop, "server-1").pid, signal.SIGKILL)
    until(lambda: (one := named(shop, "server-1")) and one.restarts and one.ready)
    run(shop, "down")
    found = process_events(shop)[before:]
    assert found[:2] == [
        ("started", "supervisor", "the project should be up"),
        ("started", "server-1", "it should run"),
    ]
    assert ("ended", "server-1", "signal 9 (SIGKILL)") in found
    assert ("started", "server-1", "again, after signal 9 (SIGKILL)") in found
    assert found[-1] == ("ended", "supervisor", "it was asked to end")
    assert [one for one in found if one[0] == "ended"][1:-1] == [
        ("ended", name, "the supervisor ends") for name in ("controller", "gateway", "server-1")
    ]
    log = (state_of(shop) / "stack" / "logs" / "supervisor.log").read_text()
    assert "server-1 ended after" in log
    run(shop, "up", "--detach")
    os.kill(read_status(state_of(shop)).supervisor.pid, signal.SIGKILL)
    run(shop, "down")
    kind, name, cause = process_events(shop)[-1]
    assert (kind, name) == ("ended", "supervisor")
    assert "it was killed after" in cause
