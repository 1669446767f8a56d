"""Online state on a real Valkey: the rules of the port, several processes, kills, an emptied store, a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from valkey_server import free_port, valkey

from cumulant.core.errors import CredentialsError, EngineUnavailableError, StorageError, UsageError
from cumulant.core.scope import Scope
from cumulant.drivers.valkey.online import ValkeyOnline
from cumulant.testing.conformance.online import OnlineConformance
from cumulant.testing.secrets import MemorySecrets

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "features"))
from test_features_advance_processes import survive_kills

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def server():
    with valkey() as started:
        yield started


@pytest.fixture
def url(server):
    server.ask(b"FLUSHALL")
    return server.url


class TestValkeyOnline(OnlineConformance):
    @pytest.fixture
    def online(self, url):
        online = ValkeyOnline(url)
        yield online
        online.close()


def run(store, act):
    """The result of a coroutine on an event loop, on which the store is closed at the end."""

    async def closing():
        try:
            return await act
        finally:
            store.close()
            await asyncio.sleep(0)

    return asyncio.run(closing())


def blobs(value, count=2000):
    return ((b"%d" % number, value) for number in range(count))


def test_projects_on_one_server_do_not_see_each_other(url):
    stores = {name: ValkeyOnline(url, scope=Scope(project=name)) for name in ("one", "two", "one2")}
    for name, store in stores.items():
        store.swap("state", blobs(name.encode(), 10))
        store.put_meta("state", {"of": name})
    stores["one"].drop("state")
    for name, store in stores.items():
        gone = name == "one"
        assert store.tables() == ([] if gone else ["state"])
        assert store.get("state", [b"3"]) == [None if gone else name.encode()]


def test_nothing_is_left_of_replaced_dropped_and_removed_rows(server, url):
    store = ValkeyOnline(url)
    for number in range(3):
        store.swap("state", blobs(b"%d" % number))
    store.update(lambda cells: cells.put("state", [(b"1", None), (b"new", b"x")]))
    store.put_meta("state", {"of": "me"})
    store.drop("state")
    store.put("other", [(b"a", b"1")])
    store.update(lambda cells: cells.put("other", [(b"a", None)]))
    rows = server.ask(b"KEYS", b"*/rows/*")
    assert rows.startswith(b"*0"), rows
    assert server.ask(b"KEYS", b"*/keys/*").startswith(b"*0")


def test_an_event_loop_reads_without_waiting_for_others_and_may_be_cancelled(url):
    store = ValkeyOnline(url)
    store.swap("state", blobs(b"x" * 10_000))

    async def act():
        keys = [b"%d" % number for number in range(500)]
        tasks = [asyncio.create_task(store.read("state", keys)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
        assert all(result == [b"x" * 10_000] * 500 for result in results[1::2])
        assert await store.read("state", [b"7", b"nope"]) == [b"x" * 10_000, None]
        assert await store.read("nope", [b"7"]) == [None]

    for _ in range(2):  # each event loop has a connection of its own
        run(store, act())


def test_the_event_loop_of_the_server_reads_too(url):
    uvloop = pytest.importorskip("uvloop")
    store = ValkeyOnline(url)
    store.swap("state", blobs(b"x" * 300_000, 100))

    async def act():
        try:
            return await store.read("state", [b"%d" % number for number in range(101)])
        finally:
            store.close()

    assert uvloop.run(act()) == [*[b"x" * 300_000] * 100, None]


def test_readers_on_an_event_loop_see_the_old_table_or_the_new_one(url):
    store, keys = ValkeyOnline(url), [b"%d" % number for number in range(0, 2000, 250)]
    store.swap("state", blobs(b"0"))

    async def act():
        swapping = asyncio.ensure_future(
            asyncio.to_thread(lambda: [store.swap("state", blobs(b"%d" % n)) for n in range(6)])
        )
        seen = set()
        while not swapping.done():
            values = set(await store.read("state", keys))
            assert len(values) == 1
            seen |= values
        await swapping
        return seen

    assert None not in run(store, act())


# Several processes -----------------------------------------------------------------------------------------------

COUNTING = """
import sys
from cumulant.drivers.valkey.online import ValkeyOnline
store = ValkeyOnline(sys.argv[1])
def add(cells):
    for table in ("one", "two"):
        count = cells.get(table, [b"n"])[0]
        cells.put(table, [(b"n", b"%d" % (int(count or b"0") + 1))])
for _ in range(int(sys.argv[2])):
    store.update(add)
    print(flush=True)
"""
FILLING = """
import sys, time
from cumulant.drivers.valkey.online import ValkeyOnline
store = ValkeyOnline(sys.argv[1])
def rows():
    for number in range(10**6):
        if number == 12_000:
            print(flush=True)
        if number > 12_000:
            time.sleep(0.01)
        yield b"%d" % number, b"new"
store.swap("state", rows())
"""


@contextmanager
def started(program, *arguments):
    """A process, killed with the block."""
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
    with process:
        yield process
        process.kill()


def test_no_update_is_lost_between_processes(url):
    with (
        started(COUNTING, url, "40") as one,
        started(COUNTING, url, "40") as two,
        started(COUNTING, url, "40") as three,
    ):
        assert [process.wait() for process in (one, two, three)] == [0, 0, 0]
    store = ValkeyOnline(url)
    assert [store.get(table, [b"n"]) for table in ("one", "two")] == [[b"120"], [b"120"]]


def test_writers_that_are_killed_leave_whole_updates_and_no_lock(url):
    store = ValkeyOnline(url)
    for _ in range(5):
        with started(COUNTING, url, "100000") as process:
            for _ in range(10):
                process.stdout.readline()
        one, two = (int(store.get(table, [b"n"])[0]) for table in ("one", "two"))
        assert one == two
        store.update(lambda cells: cells.put("three", [(b"a", b"1")]))  # waits for the end of the lock at most
    assert one >= 50


def test_a_filling_that_is_killed_changes_nothing_and_is_removed_by_the_next(server, url):
    store = ValkeyOnline(url)
    store.swap("state", blobs(b"old", 10))
    with started(FILLING, url) as process:
        process.stdout.readline()
    assert store.get("state", [b"1", b"11"]) == [b"old", None]
    assert store.swap("state", blobs(b"next", 5)) == 5
    assert store.get("state", [b"1", b"9"]) == [b"next", None]
    assert server.ask(b"KEYS", b"*/rows/*").startswith(b"*5\r\n")


def test_posted_rows_survive_kills_of_those_who_posted_them(url, tmp_path):
    survive_kills(url, tmp_path)


def test_an_update_after_its_lock_ended_is_done_again(server, url):
    """Another writer comes between, as after the pause of a process that is longer than its lock."""
    store, other, calls = ValkeyOnline(url), ValkeyOnline(url), []

    def add(cells):
        count = int(cells.get("one", [b"n"])[0] or b"0")
        calls.append(count)
        if len(calls) == 1:
            server.ask(b"DEL", b"{default/default}/online/lock", b"{default/default/local}/online/lock")
            other.put("one", [(b"n", b"10")])
        cells.put("one", [(b"n", b"%d" % (count + 1))])

    store.update(add)
    assert calls == [0, 10]
    assert store.get("one", [b"n"]) == [b"11"]


def test_an_update_whose_connection_ends_while_it_reads_is_done_again(server, url):
    store, calls = ValkeyOnline(url), []

    def add(cells):
        calls.append(cells.get("one", [b"n"]))
        if len(calls) == 1:
            server.ask(b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes")
        cells.put("one", [(b"n", b"%d" % len(cells.get("one", [b"n", b"m"])))])

    store.put("one", [(b"n", b"1")])
    store.update(add)
    assert calls == [[b"1"], [b"1"]]
    assert store.get("one", [b"n"]) == [b"2"]


# Faults ----------------------------------------------------------------------------------------------------------


def test_it_goes_on_after_a_restart_and_names_what_is_wrong_before():
    with valkey() as server:
        store = ValkeyOnline(server.url)
        store.put("state", [(b"a", b"1")])

        async def act():
            assert await store.read("state", [b"a"]) == [b"1"]
            server.kill()
            with pytest.raises(EngineUnavailableError, match="online store"):
                await store.read("state", [b"a"])
            with pytest.raises(EngineUnavailableError, match="does not answer"):
                await asyncio.to_thread(store.get, "state", [b"a"])
            with pytest.raises(EngineUnavailableError, match="does not answer"):
                await asyncio.to_thread(store.put, "state", [(b"a", b"1")])
            server.start()
            assert await store.read("state", [b"a"]) == [None]  # it keeps nothing on its disk
            await asyncio.to_thread(store.put, "state", [(b"a", b"2")])
            assert await store.read("state", [b"a"]) == [b"2"]
            server.stop()
            begun = time.monotonic()
            with pytest.raises(EngineUnavailableError, match="no reply within"):
                await store.read("state", [b"a"])
            assert time.monotonic() - begun < 30
            server.go_on()
            assert await store.read("state", [b"a"]) == [b"2"]

        run(store, act())


def test_a_server_that_does_not_reply_is_waited_for_once():
    with valkey() as server:
        store = ValkeyOnline(server.url)
        store.put("state", [(b"a", b"1")])
        server.stop()
        begun = time.monotonic()
        for call in (lambda: store.meta("state"), lambda: store.get("state", [b"a"]), store.tables):
            with pytest.raises(EngineUnavailableError, match="does not answer"):
                call()
        assert time.monotonic() - begun < 40, "each waited for 15 s"
        server.go_on()
        deadline = time.monotonic() + 20
        while True:
            try:
                assert store.get("state", [b"a"]) == [b"1"]
                break
            except EngineUnavailableError:
                assert time.monotonic() < deadline
                time.sleep(0.1)


@pytest.mark.parametrize("key", [b"table/state", b"rows/1/3"])
def test_a_key_of_another_type_is_an_error_rather_than_an_absent_row(server, url, key):
    store = ValkeyOnline(url)
    store.swap("state", blobs(b"x", 10))
    assert store.get("state", [b"3", b"nope"]) == [b"x", None]
    name = b"{default/default/local}/online/" + key
    server.ask(b"DEL", name)
    server.ask(b"RPUSH", name, b"of another program")

    async def act():
        with pytest.raises(StorageError, match="holds a list"):
            await store.read("state", [b"2", b"3"])

    with pytest.raises(StorageError, match="holds a list"):
        store.get("state", [b"2", b"3"])
    run(store, act())


def test_a_server_that_would_delete_features_is_refused():
    with valkey("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as server:
        with pytest.raises(StorageError, match="allkeys-lru") as raised:
            ValkeyOnline(server.url).swap("state", blobs(b"x", 10))
        assert "noeviction" in raised.value.hint


def test_a_full_memory_is_named():
    with valkey("--maxmemory", "3mb") as server:
        store = ValkeyOnline(server.url)
        store.put("state", [(b"a", b"1")])
        with pytest.raises(StorageError, match="memory of the online store is full"):
            store.swap("state", blobs(b"x" * 5_000))
        assert store.get("state", [b"a"]) == [b"1"]


def test_records_that_another_program_wrote_are_named_or_passed_over(server, url):
    store = ValkeyOnline(url)
    store.swap("state", blobs(b"x", 10))
    server.ask(b"HSET", b"{default/default/local}/online/meta", b"state", b"no JSON")
    server.ask(b"HSET", b"{default/default/local}/online/generations", b"no number", b"state")
    with pytest.raises(StorageError, match="online table state cannot be read"):
        store.meta("state")
    assert store.swap("state", blobs(b"y", 10)) == 10
    store.put_meta("state", {"of": "me"})
    assert (store.meta("state"), store.get("state", [b"3"])) == ({"of": "me"}, [b"y"])


def test_the_password_is_a_secret_and_the_user_sees_the_keys_of_its_project():
    rules = ("--user", "flights", "on", ">a pass word", "~{default/flights/*", "+@all")
    with valkey(*rules) as server:
        url = f"valkey://flights@127.0.0.1:{server.port}/0?password=ONLINE"
        store = ValkeyOnline(url, secrets=MemorySecrets({"ONLINE": "a pass word"}), scope=Scope(project="flights"))
        store.swap("state", blobs(b"x", 10))
        assert run(store, store.read("state", [b"3"])) == [b"x"]
        other = ValkeyOnline(url, secrets=MemorySecrets({"ONLINE": "a pass word"}), scope=Scope(project="flights2"))
        wrong = ValkeyOnline(url, secrets=MemorySecrets({"ONLINE": "wrong"}), scope=Scope(project="flights"))
        for refused, kind in ((other, StorageError), (wrong, CredentialsError)):
            with pytest.raises(kind, match="refused"):
                refused.get("state", [b"3"])
            with pytest.raises(kind, match="refused"):
                run(refused, refused.read("state", [b"3"]))
        with pytest.raises(UsageError, match="holds a password"):
            ValkeyOnline(f"valkey://flights:secret@127.0.0.1:{server.port}/0")


@contextmanager
def encrypting(port, certificate, key):
    """The URL of a server that decrypts for the one at `port`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    loop = asyncio.new_event_loop()

    async def pipe(reader, writer):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))

    listening = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"rediss://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0"
    finally:

        async def end():
            listening.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=5) if tasks else None

        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_an_encrypted_connection_is_to_the_one_whose_certificate_is_trusted(server, url, tmp_path):
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    own = ["-keyout", key, "-out", certificate, "-subj", "/CN=peer", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", *own], check=True, capture_output=True)
    with encrypting(server.port, certificate, key) as encrypted:
        trusting = ValkeyOnline(f"{encrypted}?ca={certificate}")
        trusting.swap("state", blobs(b"x", 10))
        assert run(trusting, trusting.read("state", [b"3"])) == [b"x"]
        elsewhere = f"{encrypted.replace('127.0.0.1', 'localhost')}?ca={certificate}"  # it names another host
        for refused in map(ValkeyOnline, (encrypted, elsewhere)):
            with pytest.raises(EngineUnavailableError, match="certificate"):
                refused.get("state", [b"3"])
            with pytest.raises(EngineUnavailableError, match="certificate"):
                run(refused, refused.read("state", [b"3"]))


# A cluster -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path):
    """Two nodes, each with half of the slots."""
    buses = [str(free_port()) for _ in "ab"]
    options = [
        ("--cluster-enabled", "yes", "--cluster-port", bus, "--dir", str(tmp_path / name))
        for name, bus in zip("ab", buses, strict=True)
    ]
    for name in "ab":
        (tmp_path / name).mkdir()
    with valkey(*options[0]) as one, valkey(*options[1]) as two:
        assert one.ask(b"CLUSTER", b"ADDSLOTSRANGE", b"0", b"8191").startswith(b"+OK")
        assert two.ask(b"CLUSTER", b"ADDSLOTSRANGE", b"8192", b"16383").startswith(b"+OK")
        assert one.ask(b"CLUSTER", b"MEET", b"127.0.0.1", b"%d" % two.port, buses[1].encode()).startswith(b"+OK")
        deadline = time.monotonic() + 30
        while not all(b"cluster_state:ok" in node.ask(b"CLUSTER", b"INFO") for node in (one, two)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield one, two


def test_every_node_of_a_cluster_leads_to_the_state(cluster):
    for name in ("one", "two", "three", "four"):  # their slots lie on both nodes
        for number, node in enumerate(cluster):
            store = ValkeyOnline(node.url, scope=Scope(project=name))
            assert store.swap("state", blobs(b"%d" % number)) == 2000
            store.update(lambda cells: cells.put("other", [(b"a", cells.get("state", [b"1"])[0])]))
            assert store.get("other", [b"a"]) == [b"%d" % number]
            again = ValkeyOnline(cluster[1 - number].url, scope=Scope(project=name))
            assert run(again, again.read("state", [b"5", b"nope"])) == [b"%d" % number, None]
            store.drop("other")
            assert store.tables() == ["state"]
    counts = [int(node.ask(b"DBSIZE").strip()[1:]) for node in cluster]
    assert all(count > 2000 for count in counts), counts


def take_over(node, dead):
    """Kill a node; the other one has its slots then, and none of its rows."""
    dead.kill()
    for command in (b"DELSLOTSRANGE", b"ADDSLOTSRANGE"):
        assert node.ask(b"CLUSTER", command, b"8192", b"16383").startswith(b"+OK")
    deadline = time.monotonic() + 30
    while b"cluster_state:ok" not in node.ask(b"CLUSTER", b"INFO"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_client_finds_the_node_that_took_over_from_a_dead_one(cluster):
    one, two = cluster
    scopes = [Scope(project=f"shop{number}") for number in range(20)]
    keys = [b"{%s}" % scope.prefix.rstrip("/").encode() for scope in scopes]
    scope = next(s for s, key in zip(scopes, keys, strict=True) if int(one.ask(b"CLUSTER", b"KEYSLOT", key)[1:]) > 8191)
    store, reader = ValkeyOnline(one.url, scope=scope), ValkeyOnline(one.url, scope=scope)
    store.swap("state", blobs(b"x", 10))
    assert int(two.ask(b"DBSIZE").strip()[1:]) > 10

    async def act():
        assert await reader.read("state", [b"3"]) == [b"x"]
        take_over(one, two)
        for _ in range(2):  # the first may be on the connection that ended
            with contextlib.suppress(EngineUnavailableError):
                return await reader.read("state", [b"3"])
        return None

    assert run(reader, act()) == [None]
    assert store.swap("state", blobs(b"y", 10)) == 10
    assert store.get("state", [b"3"]) == [b"y"]
