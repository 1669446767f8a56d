"""The cache that servers share, on a real Valkey: used, stopped, killed, filled up, and back again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from cumulant.core.errors import EngineUnavailableError, StorageError
from cumulant.drivers.valkey.cache import ValkeyCache
from cumulant.testing.conformance.cache import CacheConformance

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "serving"))
import serving_graphs
from valkey_server import free_port, valkey

pytestmark = pytest.mark.live

WIDTH = 700
PASSWORD = "a pass word"


@pytest.fixture(scope="module")
def shared_valkey():
    with valkey() as server:
        yield server


class TestValkeyCache(CacheConformance):
    @pytest.fixture
    def opened(self, shared_valkey):
        shared_valkey.ask(b"FLUSHALL")

        @asynccontextmanager
        async def make():
            cache = ValkeyCache(shared_valkey.url)
            try:
                yield cache
            finally:
                await cache.close()

        return make


def test_a_password_and_a_database_are_used():
    async def act(url, password):
        cache = ValkeyCache(url, password=password)
        try:
            await cache.open()
            await cache.put("key", b"value", 60.0)
            return await cache.get("key")
        finally:
            await cache.close()

    with valkey("--requirepass", PASSWORD) as server:
        assert asyncio.run(act(server.url.replace("/0", "/3"), PASSWORD)) == b"value"
        for wrong in (None, "other"):
            with pytest.raises((EngineUnavailableError, StorageError)):
                asyncio.run(act(server.url, wrong))


# Servers --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    serving_graphs.slow(root / "slow", size=WIDTH, depth=8)
    return root


@contextmanager
def serving(models, *options, stderr=None):
    command = [sys.executable, "-m", "cumulant.serving", str(models), "--http", "127.0.0.1:0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        line = process.stdout.readline()
        assert line
        yield json.loads(line)["url"]
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0
        process.stdout.close()


def body(number):
    row = np.random.default_rng(number).normal(size=WIDTH).astype(np.float32).tolist()
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": row}]}).encode()


INFER = "/v2/models/graph/infer"


def infer(client, content):
    answer = client.post(INFER, content=content)
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"]


def counted(url, family, **labels):
    """The sum of a metric's lines with these labels."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    wanted = [f'{name}="{value}"' for name, value in labels.items()]
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith((family + "{", family + " ")) and all(w in line for w in wanted)
    )


def within(seconds, condition):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
    return found


def looks(url, result):
    return counted(url, "cumulant_shared_cache_total", result=result)


def writes(url, result):
    return counted(url, "cumulant_shared_cache_writes_total", result=result)


def connected(url):
    within(10, lambda: counted(url, "cumulant_shared_cache_seconds_count") > 0)


def test_two_servers_share_answers(models, shared_valkey):
    shared_valkey.ask(b"FLUSHALL")
    bodies = [body(number) for number in range(20)]
    options = ("--cache", "on", "--cache", shared_valkey.url, "--cache-budget", "200ms")
    with serving(models, *options) as one, serving(models, *options, "--workers", "2") as other:
        connected(one), connected(other)
        with httpx.Client(base_url=one) as client:
            first = [infer(client, content) for content in bodies]
        within(10, lambda: writes(one, "written") == len(bodies))
        with httpx.Client(base_url=other) as client:
            assert [infer(client, content) for content in bodies] == first
        assert looks(other, "hit") == len(bodies)
        assert looks(other, "miss") == 0
        assert looks(one, "miss") == len(bodies)
        # What another server put there by the same name, and is not what it should be, is a miss.
        for key in shared_valkey.ask(b"KEYS", b"cumulant:*").split(b"\r\n"):
            if key.startswith(b"cumulant:"):
                shared_valkey.ask(b"SET", key, b"rubbish")
    with serving(models, *options) as third:
        connected(third)
        with httpx.Client(base_url=third) as client:
            assert [infer(client, content) for content in bodies] == first
        assert looks(third, "hit") == 0
        assert looks(third, "foreign") > 0


def test_answers_of_another_version_are_not_taken(tmp_path, shared_valkey):
    shared_valkey.ask(b"FLUSHALL")
    for version, factor in (("1", 2.0), ("2", 3.0)):
        serving_graphs.scale(tmp_path / version, factor, version=version)
    content = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}).encode()
    found = []
    for version in ("1", "2", "1"):
        with serving(
            tmp_path / version, "--cache", "on", "--cache", shared_valkey.url, "--cache-budget", "200ms"
        ) as url:
            connected(url)
            with httpx.Client(base_url=url) as client:
                found.append(infer(client, content))
            within(10, lambda: looks(url, "hit") + writes(url, "written") > 0)
            hits = looks(url, "hit")
    assert found == [[2, 4, 6], [3, 6, 9], [2, 4, 6]]
    assert hits == 1


class Load:
    """Clients that ask for ever new inputs, so that each request comes to the shared cache; each answer is checked."""

    def __init__(self, url, clients=3):
        self.seconds, self.wrong, self.failed, self.done = [], [], [], 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(url, n * 1_000_000)) for n in range(clients)]

    def _ask(self, url, number):
        with httpx.Client(base_url=url, timeout=30) as client:
            while not self._stop.is_set():
                number += 1
                begun = time.perf_counter()
                try:
                    answer = client.post(INFER, content=numbers(number))
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                    continue
                self.seconds.append(time.perf_counter() - begun)
                if answer.status_code != 200:
                    self.failed.append(answer.text)
                elif answer.json()["outputs"][0]["data"] != [2.0 * number, 2.0, 4.0]:
                    self.wrong.append(number)
                self.done += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self, count=200):
        """That many requests are answered from here on."""
        least = self.done + count
        within(60, lambda: self.done >= least)


def numbers(number):
    one = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [number, 1, 2]}
    return json.dumps({"inputs": [one]}).encode()


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    return serving_graphs.scale(tmp_path_factory.mktemp("light") / "light")


def sharing(server, *options):
    # `on`: looked up however cheap the engine is. The budget is a busy test machine's.
    return ("--cache", "on", "--cache", server.url, "--cache-budget", "100ms", "--queue", "10s", *options)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_request_fails_while_valkey_stands_still_dies_and_comes_back(light, tmp_path, workers):
    told = tmp_path / "told"
    with valkey() as server, told.open("w") as stderr:
        with serving(light, *sharing(server)) as other:
            connected(other)
            with Load(other) as load:
                load.goes_on(600)
        with serving(light, *sharing(server, "--workers", workers), stderr=stderr) as url:
            connected(url)

            def left_alone():
                return counted(url, "cumulant_shared_cache_open_workers", part="read")

            with Load(url) as load:
                load.goes_on()
                assert looks(url, "hit") > 0
                for harm, mend in ((server.stop, server.go_on), (server.kill, server.start)):
                    within(30, lambda: left_alone() == 0)
                    harm()
                    within(30, left_alone)
                    load.goes_on()
                    mend()
                    within(60, lambda: left_alone() == 0)
                    before = looks(url, "hit") + looks(url, "miss")
                    load.goes_on()
                    assert looks(url, "hit") + looks(url, "miss") > before
            assert load.failed == []
            assert load.wrong == []
            # A request waits for its look, never for the store; the rest is a busy machine's.
            assert max(load.seconds) < 5
    said = told.read_text()
    assert "is left alone for now" in said
    assert "answers again" in said
    assert "Traceback" not in said
    assert "error" not in said


def test_a_full_valkey_costs_writes_only(light):
    with valkey("--maxmemory", "1mb", "--maxmemory-policy", "noeviction") as server, contextlib.ExitStack() as stack:
        url = stack.enter_context(serving(light, *sharing(server)))
        connected(url)
        with Load(url) as load:
            within(30, lambda: writes(url, "failed") > 0)
            load.goes_on()
            assert counted(url, "cumulant_shared_cache_open_workers", part="read") == 0
            # Memory is there again: so are writes.
            before = writes(url, "written")
            server.ask(b"CONFIG", b"SET", b"maxmemory", b"0")
            within(60, lambda: writes(url, "written") > before)
            within(10, lambda: counted(url, "cumulant_shared_cache_open_workers", part="write") == 0)
        assert load.failed == []
        assert load.wrong == []


def test_a_server_starts_without_its_valkey(light):
    url_of_nobody = f"valkey://127.0.0.1:{free_port()}/0"
    with serving(light, "--cache", "on", "--cache", url_of_nobody, stderr=subprocess.DEVNULL) as url, Load(url) as load:
        load.goes_on()
        assert counted(url, "cumulant_shared_cache_open_workers", part="read") == 1
    assert load.failed == load.wrong == []
