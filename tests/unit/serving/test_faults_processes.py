"""Real servers whose parts are killed, stopped, locked, filled up and shouted at: serving goes on."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from serving_graphs import scale
from test_serving_fleet import BODY, INFER, children, metric, serving
from test_serving_recording import KNOWN, PREDICT, place, rows_of  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow

CONTENT = json.dumps(BODY).encode()
HEAD = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode()


@pytest.fixture
def repository(tmp_path):
    scale(tmp_path / "models" / "graph")
    return tmp_path / "models"


def address(ready):
    host, _, port = ready["url"].removeprefix("http://").rpartition(":")
    return host, int(port)


class Load:
    """Clients that ask all the time, on connections that they keep; every answer's time and every failure."""

    def __init__(self, url, clients=4, pause=0.002):
        self.seconds, self.failed, self.wrong = [], 0, []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(url, pause)) for _ in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, url, pause):
        with httpx.Client(base_url=url, timeout=60) as client:
            while not self._stop.is_set():
                begun = time.perf_counter()
                try:
                    answer = client.post(INFER, content=CONTENT)
                    if answer.status_code != 200 or answer.json()["outputs"][1]["data"] != [12.0]:
                        self.wrong.append((answer.status_code, answer.text))
                except httpx.TransportError:
                    self.failed += 1
                self.seconds.append(time.perf_counter() - begun)
                time.sleep(pause)


def workers(url):
    """How many answer; 0 where none does at the moment."""
    try:
        return metric(url, "cumulant_workers")
    except httpx.TransportError:
        return 0


def within(seconds, condition):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_a_worker_killed_under_load_costs_only_what_it_held(repository):
    with serving(repository, "--workers", 2) as (process, ready):
        with Load(ready["url"], clients=6) as load:
            time.sleep(0.5)
            victim = children(process)[0]
            os.kill(victim, signal.SIGKILL)
            within(60, lambda: victim not in children(process) and len(children(process)) == 2)
            within(60, lambda: workers(ready["url"]) == 2)
            within(60, lambda: len(load.seconds) > 200)
        assert load.wrong == []
        assert load.failed <= 12  # each client's connection once, and those that waited to be taken


def kill_one(process):
    for pid in children(process)[:1]:
        os.kill(pid, signal.SIGKILL)


def test_models_are_loaded_while_a_worker_dies_and_starts(repository):
    with (
        serving(repository, "--workers", 2, "--model-control", "explicit") as (process, ready),
        httpx.Client(base_url=ready["url"], timeout=30) as client,
    ):
        for turn in range(4):
            timer = threading.Timer(0.03 * turn, kill_one, [process])
            timer.start()
            for _ in range(3):
                try:
                    answer = client.post("/v2/repository/models/graph/load")
                except httpx.TransportError:
                    continue  # the worker that was asked is the one that died
                assert answer.status_code in {200, 503}, answer.text
            timer.join()
        within(60, lambda: workers(ready["url"]) == 2)
        assert client.post("/v2/repository/models/graph/load").status_code == 200
        assert client.post(INFER, content=CONTENT).status_code == 200


def test_a_stopped_worker_holds_up_neither_counts_nor_the_end(repository):
    with serving(repository, "--workers", 2, "--drain", "1s") as (process, ready):
        with httpx.Client(base_url=ready["url"], timeout=20) as client:
            client.get("/v2")
            answering = children(process)
            for one in answering:  # the one that does not hold this connection is stopped
                os.kill(one, signal.SIGSTOP)
                try:
                    client.get("/v2/health/live", timeout=2)
                    break
                except httpx.TransportError:
                    os.kill(one, signal.SIGCONT)
                    client.get("/v2/health/live")
            assert "cumulant_workers" in client.get("/metrics").text
        process.terminate()
        assert process.wait(timeout=60) == 0


def test_a_stopped_worker_is_replaced(repository):
    code = """
        import sys
        from cumulant.serving.workers import supervisor
        from cumulant.serving.__main__ import main
        supervisor._LOOK_SECONDS, supervisor._HANG_SECONDS = 0.2, 4.0
        sys.exit(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(repository), "--http", "127.0.0.1:0", "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = json.loads(process.stdout.readline())["url"]
        victim = children(process)[0]
        os.kill(victim, signal.SIGSTOP)
        within(60, lambda: victim not in children(process) and len(children(process)) == 2)
        within(60, lambda: not failing(url))
    finally:
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert f"worker {victim} has not answered" in said


def failing(url):
    try:
        return any(httpx.post(url + INFER, content=CONTENT, timeout=1).status_code != 200 for _ in range(20))
    except httpx.TransportError:
        return True


def test_a_second_request_to_end_changes_nothing(repository):
    with serving(repository, "--workers", 2) as (process, ready):
        with socket.create_connection(address(ready), timeout=20) as connection:
            connection.sendall(HEAD + CONTENT[:10])
            within(60, lambda: metric(ready["url"], "cumulant_connections") >= 2)
            process.terminate()
            time.sleep(0.2)
            process.terminate()
            time.sleep(0.2)
            connection.sendall(CONTENT[10:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert process.wait(timeout=60) == 0


def test_the_log_process_stopped_under_load_is_not_noticed(repository, tmp_path):
    with serving(repository, "--log", tmp_path / "log") as (process, ready):
        within(60, lambda: children(process))
        (scribe,) = children(process)
        with Load(ready["url"], pause=0.005) as load:
            time.sleep(0.5)
            os.kill(scribe, signal.SIGSTOP)
            before = len(load.seconds)
            within(60, lambda: len(load.seconds) > before + 300)  # answered while it is stopped
            os.kill(scribe, signal.SIGCONT)
            time.sleep(0.5)
        assert (load.failed, load.wrong) == (0, [])
        lost = metric(ready["url"], 'cumulant_log_records_total{result="lost"}')
        assert lost == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_under_the_log_does_not_stop_answers(repository, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("cannot mount")
    try:
        (disk / "full").write_bytes(b"x" * 60_000)
        with serving(repository, "--log", disk / "log") as (_, ready), Load(ready["url"]) as load:
            time.sleep(1)
            within(60, lambda: len(load.seconds) > 100)
        assert (load.failed, load.wrong) == (0, [])
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_log_folder_that_cannot_be_written_does_not_stop_answers(repository, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with serving(repository, "--log", tmp_path / "file" / "log") as (_, ready), Load(ready["url"]) as load:
        time.sleep(1)
    assert (load.failed, load.wrong) == (0, [])


@contextmanager
def locked(path, kind):
    """Another process's write lock on the file."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"BEGIN {kind}")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_locked_store_delays_writes_only(place, kind, tmp_path, monkeypatch):  # noqa: F811 - the fixture
    from serving_models import ROW, SALT, flights

    monkeypatch.setenv("CUMULANT_SALT", SALT.decode())
    (event,) = rows_of(flights(KNOWN + 1).tail(1), ["distance", "sched_dep", "carrier", "tail", "late", "landed"])
    row = ROW | {"sched_dep": "2013-04-03T18:00:00+00:00"}
    with serving(*place, "--model-control", "explicit") as (_, ready):
        with httpx.Client(base_url=ready["url"], timeout=30) as client:
            assert client.post(PREDICT, json=row).status_code == 200
        found = {}

        def ask(name, path, body):
            found[name] = httpx.post(ready["url"] + path, json=body, timeout=60).status_code

        requests = {
            "event": ("/v1/events", {"source": "flights", "rows": [event]}),
            "row": (PREDICT, row | {"tail": "N9"}),
            "load": ("/v2/repository/models/flight-late/load", {}),
        }
        with locked(tmp_path / "online.db", kind):
            threads = [threading.Thread(target=ask, args=(name, *one)) for name, one in requests.items()]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            with httpx.Client(base_url=ready["url"], timeout=60) as client:
                for _ in range(20):
                    assert client.get("/v2/health/ready").status_code == 200
            assert found == {}, "the lock is held: only those who need no store are answered"
        for thread in threads:
            thread.join()
        assert found == dict.fromkeys(requests, 200)


def test_a_thousand_slow_clients_do_not_keep_out_the_others(repository):
    with serving(repository) as (process, ready):
        before = _memory(process.pid)
        slow = []
        try:
            for number in range(900):
                connection = socket.create_connection(address(ready), timeout=60)
                connection.sendall(HEAD[: 1 + number % 60])
                slow.append(connection)
            with Load(ready["url"], clients=2) as load:
                for _ in range(5):
                    for connection in slow[::9]:
                        connection.sendall(b"")
                    time.sleep(0.2)
                within(60, lambda: len(load.seconds) > 100)
            assert (load.failed, load.wrong) == (0, [])
            assert _memory(process.pid) - before < 60e6
        finally:
            for connection in slow:
                connection.close()


def _memory(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def mutated(chance):
    """A request that is nearly right, or not at all."""
    if chance.random() < 0.2:
        return chance.randbytes(chance.randrange(1, 4000))
    found = bytearray((HEAD + CONTENT) * chance.randrange(1, 3))
    for _ in range(chance.randrange(1, 8)):
        at = chance.randrange(len(found))
        match chance.randrange(4):
            case 0:
                found[at] = chance.randrange(256)
            case 1:
                del found[at : at + chance.randrange(20)]
            case 2:
                found[at:at] = chance.randbytes(chance.randrange(20))
            case 3:
                found[at:at] = chance.choice([b"\r\n", b"\0", b"9" * 30, b"[[[[", b'"\\ud800"', b"1e999", b"\xff" * 9])
        if not found:
            return b"\r\n"
    return bytes(found)


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)


async def shout(where, seeds):
    """What many clients send at once, and the statuses that they hear."""
    statuses = set()

    async def one(seed):
        chance = random.Random(seed)
        reader, writer = await asyncio.open_connection(*where)
        try:
            writer.write(PREFACE * chance.randrange(2) + mutated(chance))
            await writer.drain()
            if chance.random() < 0.5:
                writer.write_eof()
                found = await asyncio.wait_for(reader.read(100_000), 3)
                statuses.update(part[:3] for part in found.split(b"HTTP/1.1 ")[1:])
        except (OSError, TimeoutError):
            pass
        finally:
            writer.close()

    seeds = list(seeds)
    for at in range(0, len(seeds), 50):
        await asyncio.gather(*map(one, seeds[at : at + 50]))
    return statuses


def test_noise_on_both_ports_harms_nobody(repository):
    with serving(repository, "--grpc", "127.0.0.1:0") as (process, ready):
        host, _, port = ready["grpc"].rpartition(":")
        with Load(ready["url"], clients=2) as load:
            heard = asyncio.run(shout(address(ready), range(1500)))
            asyncio.run(shout((host, int(port)), range(300)))
        assert (load.failed, load.wrong) == (0, [])
        assert heard
        assert b"500" not in heard, "a fault of the caller's is told as the server's"
        assert process.poll() is None
        assert _memory(process.pid) < 500e6
        process.terminate()
        assert process.wait(timeout=60) == 0
        assert "Traceback" not in process.stderr.read()


def test_more_connections_than_the_usual_limit_of_files(repository):
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = "import resource as r, runpy, sys; r.setrlimit(r.RLIMIT_NOFILE, (60, r.getrlimit(r.RLIMIT_NOFILE)[1])); "
    code += "runpy.run_module('cumulant.serving', run_name='__main__')"
    if hard != resource.RLIM_INFINITY and hard < 400:
        pytest.skip("the system grants no more")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(repository), "--http", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    )
    held = []
    try:
        where = address(json.loads(process.stdout.readline()))
        held.extend(socket.create_connection(where, timeout=60) for _ in range(200))
        held[-1].sendall(HEAD + CONTENT)
        assert held[-1].recv(100).startswith(b"HTTP/1.1 200")
    finally:
        for connection in held:
            connection.close()
        process.terminate()
        process.wait(timeout=60)
        process.stdout.close()
