# ruff: noqa: ASYNC110, PLW1510, SIM105, PT012
"""The log process and its workers, as real processes: what arrives, and what is known to be lost when they die."""

import asyncio
import os
import re
import signal
import socket as sockets
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import log_support as support
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_support import LONG, client, end, entry, ids, lost, memory, put, running, sequences, start, wait_for

from cumulant.core.masking import mask
from cumulant.core.plan import Field
from cumulant.serving.prediction_log.client import LogClient
from cumulant.serving.prediction_log.entry import DESCRIBE, ENTRY, HEAD, HELLO, MAX_FRAME, Hello, make_frame
from cumulant.serving.prediction_log.log_command import log_command
from cumulant.serving.prediction_log.storage.log_reader import find_gaps, find_predictions, recent_predictions
from cumulant.serving.prediction_log.storage.scanning import scan
from cumulant.testing.log import folder_log

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path):
    return tmp_path / "log.sock", tmp_path / "log"


def test_what_workers_put_can_be_read_and_found(place):
    values = {"rows": b'[{"x":1},{"x":2}]', "event_times": [5, None], "ages": [1.5], "now": time.time_ns() // 1000}
    with running(*place):
        one = put(place[0], [entry(f"r{n:03d}", **values) for n in range(600)])
        wait_for(lambda: place[1].exists() and scan(folder_log(place[1])).dataset.count_rows() == 1200)
    assert (one.written, one.lost, one.waiting) == (600, 0, 0)
    first, second = find_predictions(folder_log(place[1]), "r007")
    assert (first.row, first.request, first.event_time, first.state_age) == (0, '{"x":1}', 5, 1.5)
    assert (second.row, second.request, second.event_time, second.state_age) == (1, '{"x":2}', None, None)
    assert (first.worker, first.sequence, first.model, first.latency_us) == (one.worker, 8, "m", 90)
    assert find_gaps(folder_log(place[1])) == []
    assert find_predictions(folder_log(place[1]), "nothing") == []
    # all of one microsecond: the newest are those that were put last
    assert [p.id for p in recent_predictions(folder_log(place[1]), limit=3)] == ["r599", "r599", "r598"]
    assert recent_predictions(folder_log(place[1]), model="other") == []


def test_the_end_writes_everything_that_was_sent(place):
    with running(*place, visible="1h") as process:
        put(place[0], [entry(f"r{n:05d}") for n in range(5000)])
        assert end(process) == 0
    assert len(ids(place[1])) == 5000
    assert find_gaps(folder_log(place[1])) == []
    assert not place[0].exists()


def test_a_process_that_is_ended_as_soon_as_its_socket_is_there_ends_in_order(place):
    """Whoever finds the socket may send it SIGTERM at once."""
    code = (
        "import os, signal, sys; from contextlib import contextmanager\n"
        "from cumulant.serving.prediction_log import __main__, process\n"
        "real = process.open_listener\n"
        "@contextmanager\n"
        "def ended(path):\n"
        "    with real(path) as listener:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        yield listener\n"
        "process.open_listener = ended\n"
        "sys.exit(__main__.main())"
    )
    line = log_command(*place)
    options = line[line.index("cumulant.serving.prediction_log") + 1 :]
    done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr


def test_personal_values_never_reach_the_disk(place, tmp_path):
    key = tmp_path / "salt"
    key.write_bytes(b"pepper")
    config = tmp_path / "personal.json"
    config.write_text('{"m": [{"name": "email", "dtype": "str", "personal": true}]}')
    with running(*place, visible="1h", key_file=key, personal=config) as process:

        async def work():
            one = LogClient(place[0], worker="w")
            one.describe("later", [Field("card", "str", personal=True)])
            one.put(entry("a", rows=b'[{"email":"ada@example.com"}]'))
            late = entry("b", rows=b'[{"card":"4242424242424242"}]')
            late.model = "later"
            one.put(late)
            unknown = entry("c", rows=b'[{"name":"Grace Hopper"}]')
            unknown.model = "unknown"
            one.put(unknown)
            await one.close(LONG)

        asyncio.run(work())
        assert end(process) == 0
    told = "".join(find_predictions(folder_log(place[1]), name)[0].request for name in "abc")
    assert mask("ada@example.com", b"pepper") in told
    assert mask("4242424242424242", b"pepper") in told
    assert mask("Grace Hopper", b"pepper") in told
    for path in place[1].rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert not any(value in data for value in (b"ada@example", b"4242424242", b"Grace"))


# Deaths


def test_a_killed_worker_loses_what_it_had_not_sent_and_the_gap_says_so(place):
    with running(*place):
        worker = support.worker(place[0], 1000, flushes=False)
        assert worker.stdout.readline() == "done\n"
        worker.kill()
        worker.communicate()
        found = wait_for(lambda: place[1].exists() and find_gaps(folder_log(place[1])))
    kept = sequences(place[1])
    assert kept == list(range(1, 769))  # three batches of 256
    assert [(gap.first, gap.last, gap.count) for gap in found] == [(769, 1000, 232)]


def test_a_killed_log_process_loses_what_nobody_could_see_yet_and_the_gap_says_so(place):
    first = start(*place, visible="1s")
    worker = support.worker(place[0], 4000, pause=0.002, tells=True)
    wait_for(lambda: place[1].exists() and sequences(place[1]))
    first.send_signal(signal.SIGSTOP)
    before = sequences(place[1])
    while int(worker.stdout.readline()) <= before[-1]:  # more is handed over than can be seen
        pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    with running(*place, visible="300ms") as second:
        while worker.stdout.readline() != "done\n":
            pass
        out, _ = worker.communicate("\n", timeout=LONG)
        assert end(second) == 0
    kept = sequences(place[1])
    assert before == kept[: len(before)]
    assert len(set(kept)) == len(kept)
    missing = lost(find_gaps(folder_log(place[1])))
    assert sorted(kept + missing) == list(range(1, 4001))
    # What the killed process had received and not shown yet, and nothing from before or after.
    assert missing == list(range(before[-1] + 1, before[-1] + 1 + len(missing)))
    assert missing
    assert kept[-1] == 4000
    assert int(out.split()[1]) <= 1


def test_a_stopped_log_process_costs_bounded_memory_and_the_gap_is_exact(place):
    limit = 4 * 1024 * 1024

    async def work(process):
        one = client(place[0], limit=limit)
        one.put(entry("first"))
        await support.handed_over(one, 1)
        process.send_signal(signal.SIGSTOP)
        before = memory(os.getpid())
        body = b'[{"x":"' + b"y" * 1000 + b'"}]'
        for number in range(60_000):  # 60 MB
            one.put(entry(f"r{number:06d}", rows=body))
            if number % 500 == 0:
                assert one.waiting <= limit
                await asyncio.sleep(0)
        grown = memory(os.getpid()) - before
        assert one.lost > 40_000
        dropped = one.lost
        process.send_signal(signal.SIGCONT)
        while one.waiting:
            await asyncio.sleep(0.02)
        one.put(entry("last"))
        await one.close(LONG)
        return one, grown, dropped

    with running(*place) as process:
        one, grown, dropped = asyncio.run(work(process))
        assert end(process) == 0
    assert grown < 4 * limit
    assert one.lost == dropped
    assert one.written + one.lost == 60_002
    assert sum(gap.count for gap in find_gaps(folder_log(place[1]))) == dropped
    assert {"first", "last"} <= set(ids(place[1]))


def test_without_a_log_process_nothing_waits_and_nothing_raises(place):
    async def work():
        one = client(place[0], limit=100_000)
        for number in range(5000):
            one.put(entry(f"r{number}"))
        await asyncio.sleep(0.1)
        assert one.lost > 0
        assert 0 < one.waiting <= 100_000
        one.put(entry("bad", tenant=5))  # nothing checks its types here
        one.put(entry("\ud800"))
        began = time.monotonic()
        await one.close(timeout=0.2)
        await one.close()
        one.put(entry("late"))
        return one, time.monotonic() - began

    one, seconds = asyncio.run(work())
    assert seconds < 60
    assert (one.written, one.lost, one.waiting) == (0, 5003, 0)


def test_the_end_of_a_worker_does_not_wait_for_a_log_process_that_hangs(place):
    async def work(process):
        one = client(place[0])
        one.put(entry("first"))
        await support.handed_over(one, 1)
        process.send_signal(signal.SIGSTOP)
        for number in range(5000):
            one.put(entry(f"r{number}", rows=b'[{"x":"' + b"y" * 1000 + b'"}]'))
        began = time.monotonic()
        await one.close(timeout=0.3)
        seconds = time.monotonic() - began
        process.send_signal(signal.SIGCONT)
        return one, seconds

    with running(*place, visible="1h") as process:
        one, seconds = asyncio.run(work(process))
        assert end(process) == 0
    assert seconds < 60
    assert one.lost > 1000
    assert one.written + one.lost == 5001
    assert lost(find_gaps(folder_log(place[1]))) == list(range(one.written + 1, 5002))


def test_an_entry_that_cannot_be_encoded_is_lost_alone(place):
    with running(*place) as process:
        one = put(place[0], [entry("a"), entry("\ud800"), entry("b")])
        assert end(process) == 0
    assert (one.written, one.lost) == (2, 1)
    assert ids(place[1]) == ["a", "b"]
    assert lost(find_gaps(folder_log(place[1]))) == [2]


def test_entries_wait_for_a_log_process_that_comes_late(place):
    async def work():
        one = client(place[0])
        for number in range(300):
            one.put(entry(f"r{number}"))
        await asyncio.sleep(0.2)
        assert one.written == 0
        process = await asyncio.to_thread(start, *place)
        while one.waiting:
            await asyncio.sleep(0.05)
        await one.close(LONG)
        assert await asyncio.to_thread(end, process) == 0
        return one

    assert asyncio.run(work()).written == 300
    assert len(ids(place[1])) == 300
    assert find_gaps(folder_log(place[1])) == []


def test_it_ends_with_its_parent(place):
    code = (
        "import os, subprocess, sys, time; from cumulant.serving.prediction_log.log_command import log_command; "
        "p = subprocess.Popen(log_command(sys.argv[1], sys.argv[2], parent=os.getpid())); print(p.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, *map(str, place)], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    wait_for(place[0].exists)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not place[0].exists())
    wait_for(lambda: not alive(child))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# Disk


def test_a_full_disk_costs_rows_that_are_counted_and_it_recovers(place, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], capture_output=True).returncode != 0:
        pytest.skip("a file system cannot be mounted here: run as root")
    try:
        with running(place[0], small / "log", visible="200ms", stderr=subprocess.PIPE) as process:
            put(place[0], [entry(f"a{n}") for n in range(100)])
            wait_for(lambda: scan(folder_log(small / "log")).dataset.count_rows() == 100)
            filler = small / "filler"
            with pytest.raises(OSError), filler.open("wb") as stream:
                while True:
                    stream.write(os.urandom(65536))
            put(
                place[0],
                [entry(f"b{n}", rows=b'[{"x":"' + os.urandom(400).hex().encode() + b'"}]') for n in range(500)],
            )
            said = process.stderr.readline().decode()
            assert process.poll() is None
            filler.unlink()
            put(place[0], [entry(f"c{n}") for n in range(100)])
            wait_for(lambda: {f"c{n}" for n in range(100)} <= set(ids(small / "log")))
            assert end(process) == 0
            said += process.stderr.read().decode()
            process.stderr.close()
        late = [
            name for name in ids(small / "log") if name.startswith("b")
        ]  # of a batch that came when there was space
        assert said.count("the prediction log lost") == 1
        # The first failure is told at once; what comes later in the minute is only counted.
        assert re.search(r"lost \d+ rows so far: the disk is full; free some space", said)
        assert sum(gap.count for gap in find_gaps(folder_log(small / "log"))) == 500 - len(late) > 0
        assert len(ids(small / "log")) == 200 + len(late)
        assert not list((small / "log").rglob(".*.writing"))
    finally:
        subprocess.run(["umount", "-l", small], check=True)


# Hostile bytes


def shout(path, data):
    with sockets.socket(sockets.AF_UNIX) as channel:
        channel.settimeout(5)
        channel.connect(str(path))
        try:
            channel.sendall(data)
            channel.shutdown(sockets.SHUT_WR)
            while channel.recv(1024):
                pass
        except OSError:  # it hung up first
            pass


HELLO_FRAME = make_frame(HELLO, msgspec.msgpack.encode(Hello("evil", 1, "", {})))


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    with running(folder / "log.sock", folder / "log") as process:
        yield folder / "log.sock", folder / "log", process


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.binary(max_size=300), st.booleans(), st.sampled_from([None, HELLO, ENTRY, DESCRIBE, 4, 9]))
def test_garbage_is_refused_and_good_workers_are_served(attacked, data, greets, kind):
    path, _, process = attacked
    shout(path, (HELLO_FRAME if greets else b"") + (data if kind is None else make_frame(kind, data)))
    assert process.poll() is None


def test_after_garbage_good_workers_are_served_and_memory_is_bounded(attacked):
    path, folder, process = attacked
    long = HEAD.pack(MAX_FRAME, ENTRY)
    values = [{"id": "x", "time_us": 2**63}, ["a", 2**62, 1, "m", "1"], ["a", -1, 1, "m", "1"], ["a"], 5]
    for value in values:
        shout(path, HELLO_FRAME + make_frame(ENTRY, msgspec.msgpack.encode(value)))
    shout(path, HELLO_FRAME + HEAD.pack(MAX_FRAME + 1, ENTRY))
    shout(path, HELLO_FRAME + HEAD.pack(0, ENTRY))
    shout(path, HELLO_FRAME + HELLO_FRAME)
    deep = b"[" * 100_000 + b"]" * 100_000
    shout(path, HELLO_FRAME + make_frame(ENTRY, msgspec.msgpack.encode(entry("deep", rows=deep))))
    shout(path, HELLO_FRAME + make_frame(ENTRY, b"\x91" * 100_000))
    before = memory(process.pid)
    channels = []
    for _ in range(8):  # eight frames that never end, of 60 MB each
        channel = sockets.socket(sockets.AF_UNIX)
        channel.settimeout(5)
        channel.connect(str(path))
        channels.append(channel)
        try:
            channel.sendall(HELLO_FRAME + long + bytes(60_000_000))
        except OSError:
            pass
    assert memory(process.pid) - before < 350_000_000
    for channel in channels:
        channel.close()
    one = put(path, [entry("good")])
    assert one.lost == 0
    wait_for(lambda: "good" in ids(folder))
    assert process.poll() is None


# Start and manners


def test_a_socket_is_for_one_log_process_and_its_user(place):
    with running(*place):
        assert stat.S_IMODE(place[0].stat().st_mode) == 0o600
        second = subprocess.run(log_command(*place), capture_output=True, text=True, timeout=LONG)
        assert (second.returncode, second.stdout) == (3, "")
        assert "another log process serves this socket" in second.stderr


def test_a_socket_that_a_killed_process_left_is_replaced_and_anything_else_is_not(place):
    process = start(*place)
    process.kill()
    process.wait()
    assert place[0].exists()
    with running(*place) as process:
        assert put(place[0], [entry("a")]).written == 1
        assert end(process) == 0
    place[0].write_text("mine")
    refused = subprocess.run(log_command(*place), capture_output=True, text=True, timeout=LONG)
    assert refused.returncode == 2
    assert "something else" in refused.stderr
    assert place[0].read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ({"key_env": "NO_SUCH_KEY"}, 2, "NO_SUCH_KEY is empty"),
        ({"key_file": "/nowhere/salt"}, 2, "cannot be read"),
        ({"personal": "/nowhere/fields"}, 2, "cannot be read"),
        ({"keep": "soon"}, 2, "not a duration"),
    ],
)
def test_wrong_settings_are_told(place, options, code, said):
    ended = subprocess.run(log_command(*place, **options), capture_output=True, text=True, timeout=LONG)
    assert ended.returncode == code
    assert said in ended.stderr


def test_a_path_that_no_socket_can_have(tmp_path):
    ended = subprocess.run(
        log_command(tmp_path / ("x" * 200), tmp_path / "log"), capture_output=True, text=True, timeout=20
    )
    assert ended.returncode == 2
    assert "short path" in ended.stderr


def test_a_worker_imports_neither_pyarrow_nor_numpy():
    code = (
        "import sys, asyncio; from cumulant.serving.prediction_log.entry import LogEntry; from cumulant.serving.prediction_log.client import LogClient; from cumulant.serving.prediction_log.log_command import log_command\n"
        "async def work():\n"
        "    one = LogClient('/nowhere/log.sock', worker='w')\n"
        "    one.put(LogEntry(id='a', time_us=1, latency_us=1, model='m', version='1'))\n"
        "    await one.close(timeout=0.1)\n"
        "asyncio.run(work()); log_command('a', 'b')\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=LONG)
    assert not {"pyarrow", "numpy", "polars", "pandas"} & set(done.stdout.split())


def test_readers_see_each_row_once_while_it_is_written_and_merged(place):
    seen, faults, done = [], [], threading.Event()

    def read():
        while not done.is_set():
            try:
                numbers = sequences(place[1])
                seen.append(len(numbers))
                if len(set(numbers)) != len(numbers) or (
                    seen[-2:] == sorted(seen[-2:], reverse=True) and seen[-2:][0] > seen[-1]
                ):
                    faults.append(numbers)
            except Exception as error:
                faults.append(error)

    with running(*place, "--file-age", "0s", visible="50ms") as process:
        wait_for(place[1].exists)
        reader = threading.Thread(target=read)
        reader.start()
        worker = support.worker(place[0], 800, pause=0.002)
        assert worker.stdout.readline() == "done\n"
        worker.communicate("\n", timeout=LONG)
        assert end(process) == 0
        done.set()
        reader.join()
    assert not faults
    assert sequences(place[1]) == list(range(1, 801))


def test_uvloop_serves_the_client_too(place):
    uvloop = pytest.importorskip("uvloop")

    async def work():
        one = client(place[0])
        for number in range(20_000):
            one.put(entry(f"r{number:05d}", rows=b'[{"x":"' + b"y" * 200 + b'"}]'))
            if number % 256 == 0:
                await asyncio.sleep(0)
        await one.close(LONG)
        return one

    with running(*place) as process:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            one = runner.run(work())
        assert end(process) == 0
    assert (one.written, one.lost) == (20_000, 0)
    assert len(ids(place[1])) == 20_000
