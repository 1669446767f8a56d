# ruff: noqa: PLW1510, PT012
"""A log that answers wait for: what was confirmed is read after any kill, and what cannot be written is refused."""

import asyncio
import os
import signal
import socket as sockets
import subprocess
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from journal_support import DAY, NOON, journaled, journals, parts_of
from log_support import ANSWERS, LONG, end, entry, ids, running, start, wait_for

from cumulant.core.errors import EngineUnavailableError
from cumulant.serving.prediction_log.confirmations import Confirmations
from cumulant.serving.prediction_log.confirmed_client import ConfirmedClient
from cumulant.serving.prediction_log.entry import (
    COMMITTED,
    COUNTER,
    ENTRY,
    HEAD,
    HELLO,
    REFUSED,
    Hello,
    LogEntry,
    make_frame,
)
from cumulant.serving.prediction_log.storage import log_folder
from cumulant.serving.prediction_log.storage.journal import claim_journal
from cumulant.serving.prediction_log.storage.log_reader import find_gaps
from cumulant.serving.prediction_log.storage.recovery import read_records, recover
from cumulant.serving.prediction_log.storage.scanning import scan
from cumulant.testing.log import folder_log


@pytest.fixture
def where(tmp_path):
    return tmp_path / "log.sock", tmp_path / "log"


def client(socket, **more):
    return ConfirmedClient(socket, worker="w", personal={"m": []}, **{"patience": LONG, **more})


async def confirmed(waiting):
    """Which of the requests were confirmed."""
    found = await asyncio.gather(*waiting.values(), return_exceptions=True)
    return [name for name, one in zip(waiting, found, strict=True) if one is None]


# Kills


@pytest.mark.slow
@pytest.mark.parametrize("form", ["rows", "matrix"])
def test_what_was_confirmed_is_read_after_kills_of_the_log_process(where, form):
    def made(number):
        if form == "rows":
            return entry(f"r{number:05d}")
        outputs = [("p", "FP32", [1], bytes(4))]
        given = {"tensors": [("x", "FP32", [1, 2], bytes(8))], "columns": ["a", "b"], "outputs": outputs}
        return entry(f"r{number:05d}", rows=b"", **given)

    async def work():
        process, one, waiting = start(*where, visible="300ms"), client(where[0], patience=LONG), {}
        for number in range(3):
            for _ in range(150):
                name = len(waiting)
                waiting[f"r{name:05d}"] = one.put(made(name))
                await asyncio.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            process.wait()
            if number == 1:  # it is killed while nothing is open too
                await asyncio.sleep(0.1)
            process = start(*where, visible="300ms")
        found = await confirmed(waiting)
        await one.close(LONG)
        assert end(process) == 0
        return one, found

    one, found = asyncio.run(work())
    assert len(found) == 450  # those that the killed process had not confirmed went to the next one
    assert ids(where[1]) == found
    assert find_gaps(folder_log(where[1])) == []
    assert journals(where[1]) == []
    assert (one.written, one.lost, one.refused, one.waiting) == (450, 0, 0, 0)


def test_confirmed_rows_are_recovered_by_the_next_process_of_the_folder(where):
    async def work(process):
        one = client(where[0])
        found = await confirmed({f"r{n}": one.put(entry(f"r{n}", rows=b'[{"x":1},{"x":2}]')) for n in range(9)})
        process.send_signal(signal.SIGKILL)
        process.wait()
        await one.close()
        return found

    with running(*where, visible="1h") as process:
        assert len(asyncio.run(work(process))) == 9
    assert len(journals(where[1])) == 1
    assert oct(journals(where[1])[0].stat().st_mode & 0o777) == "0o600"
    assert scan(folder_log(where[1])).dataset.count_rows() == 0
    with running(where[0].with_name("other.sock"), where[1]):
        wait_for(lambda: scan(folder_log(where[1])).dataset.count_rows() == 18 and not journals(where[1]))


def test_personal_values_do_not_reach_the_journal(where):
    async def work(process):
        one = ConfirmedClient(where[0], worker="w", patience=LONG)
        await one.put(entry("a", rows=b'[{"email":"ada@example.com"}]'))
        process.send_signal(signal.SIGKILL)
        process.wait()
        await one.close()

    with running(*where, visible="1h") as process:
        asyncio.run(work(process))
    (journal,) = journals(where[1])
    assert b"#hidden" in journal.read_bytes()
    assert b"ada@" not in journal.read_bytes()


# What cannot be written


def test_a_full_disk_refuses_and_loses_nothing_that_was_confirmed(where, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], capture_output=True).returncode != 0:
        pytest.skip("a file system cannot be mounted here: run as root")

    def fill(name):
        with pytest.raises(OSError), (small / name).open("wb", buffering=0) as stream:
            while True:
                stream.write(os.urandom(4096))

    async def work():
        one, names, errors = client(where[0]), [], []

        async def ask(letter):
            body = b'[{"x":"' + os.urandom(400).hex().encode() + b'"}]'
            waiting = {f"{letter}{n}": one.put(entry(f"{letter}{n}", rows=body)) for n in range(100)}
            found = await asyncio.gather(*waiting.values(), return_exceptions=True)
            names.extend(name for name, error in zip(waiting, found, strict=True) if error is None)
            errors.extend(error for error in found if error is not None)

        await ask("a")
        for letter in "bcd":  # a journal that is removed, and the last block of one, leave some space
            fill(letter)
            await ask(letter)
        await asyncio.sleep(0.5)
        for letter in "bcd":
            (small / letter).unlink()
        await ask("e")
        await one.close(LONG)
        return names, errors

    try:
        with running(where[0], small / "log", visible="200ms", stderr=subprocess.PIPE) as process:
            names, errors = asyncio.run(work())
            assert end(process) == 0
            said = process.stderr.read().decode()
            process.stderr.close()
        recover(small / "log")  # as the next process does
        assert ids(small / "log") == sorted(names)
        assert len(names) + len(errors) == 500
        assert {name[0] for name in names} >= {"a", "e"}
        assert {type(error) for error in errors} == {EngineUnavailableError}
        assert all("the disk is full; free some space" in str(error) for error in errors)
        assert sum(gap.count for gap in find_gaps(folder_log(small / "log"))) == len(errors)
        assert "answered with 503: the disk is full; free some space" in said
        assert "lost" not in said
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_without_a_log_process_requests_are_refused_in_time_and_nothing_is_kept(where):
    async def work():
        one = client(where[0], patience=0.3, limit=2000)
        first = one.put(entry("a"))
        with pytest.raises(EngineUnavailableError, match="not confirmed within"):
            await first
        assert one.waiting == 0
        found = [one.put(entry(f"b{n}", rows=b'[{"x":"' + b"y" * 400 + b'"}]')) for n in range(9)]
        with pytest.raises(EngineUnavailableError, match="too many entries wait"):
            await found[-1]
        with running(*where) as process:
            assert len(await confirmed(dict(enumerate(found)))) == 10 - one.refused
            await one.close(LONG)
            assert end(process) == 0

    asyncio.run(work())


def test_an_entry_that_is_not_what_it_says_is_refused_alone(where):
    async def work():
        one = client(where[0])
        wrong = LogEntry(id="b", time_us=1, latency_us=1, model="m", version="1", answers=ANSWERS)
        wrong.tensors = [("x", "FP32", [1, 2], b"???")]
        waiting = {"a": one.put(entry("a")), "b": one.put(wrong), "c": one.put(entry("c"))}
        found = await confirmed(waiting)
        await one.close(LONG)
        return found

    with running(*where) as process:
        assert asyncio.run(work()) == ["a", "c"]
        assert end(process) == 0
    assert ids(where[1]) == ["a", "c"]


def numbers_told(path, *frames):
    """What the log process tells a worker that sends these frames; empty where it hangs up."""
    with sockets.socket(sockets.AF_UNIX) as one:
        one.settimeout(LONG)
        one.connect(str(path))
        one.sendall(b"".join(frames))
        try:
            return unpacked(one.recv(4096))
        except ConnectionError:
            return []


@pytest.mark.parametrize("writable", [True, False])
def test_an_entry_that_comes_again_after_its_connection_ended_is_told_of_as_it_was(where, writable):
    def sent(name):
        hello = Hello(f"worker-{name}", 0, "", {"m": []}, [], durable=True)
        asked = entry(name)
        asked.sequence = 1
        return make_frame(HELLO, msgspec.msgpack.encode(hello)) + make_frame(ENTRY, msgspec.msgpack.encode(asked))

    expected = [COMMITTED] if writable else [REFUSED, COMMITTED]
    days = [where[1] / f"date={datetime.now(UTC).date() + timedelta(days=number)}" for number in range(2)]
    with running(*where) as process:
        if not writable:
            for day in days:  # it may be midnight soon
                day.write_bytes(b"")  # where its folder should be
        assert numbers_told(where[0], sent("a"), bytes(5)) == []  # garbage ends the connection
        for name in ("b", "a"):
            assert [kind for kind, _ in numbers_told(where[0], sent(name))] == expected
            if name == "b" and not writable:
                for day in days:
                    day.unlink()
        assert end(process) == 0
    assert ids(where[1]) == (["a", "b"] if writable else [])


# Journals


def test_a_journal_is_read_up_to_a_record_that_is_incomplete_or_damaged(tmp_path):
    parts = journaled(tmp_path, 3)
    (journal,) = journals(tmp_path)
    whole = journal.read_bytes()
    with claim_journal(journal) as content:
        assert content is None  # it is written
    for part in parts.take():
        part.journal.leave(journal)
    size = len(whole) // 3
    zeros = whole + bytes(99)
    for data, count in [
        (whole, 3),
        (zeros, 3),
        (whole[:-1], 2),
        (whole[: size + 3], 1),
        (whole[:-9] + b"x" + whole[-8:], 2),
    ]:
        journal.write_bytes(data)
        with claim_journal(journal) as content:
            records = read_records(content)
        assert (len(records.rows), records.damaged) == (count, 0)
    assert records.rows[0][0] == "r0"


def test_a_recovery_that_was_cut_off_writes_no_row_twice(tmp_path):
    parts = journaled(tmp_path, 3)
    (journal,) = journals(tmp_path)
    data = journal.read_bytes()
    parts.close()
    journal.write_bytes(data)  # killed after the renaming of the part
    seen = []
    recover(tmp_path, lambda *one: seen.append(one))
    assert seen == [("w", 0)] * 3
    assert (len(ids(tmp_path)), journals(tmp_path)) == (3, [])


def test_rows_of_a_part_that_could_not_be_written_are_recovered_beside_a_merged_one(tmp_path):
    lost = []
    parts = parts_of(tmp_path, lambda error, rows: lost.append(rows))
    for number in range(3):
        parts.add_durable(entry(f"r{number}", now=NOON), "w", "")
        parts.commit()
        (part,) = parts.take()
        if number != 1:
            parts.publish([part])
        else:
            part.close = lambda: (_ for _ in ()).throw(OSError(28, "full"))
            parts.publish([part])
    first, last = log_folder.list_day_files(tmp_path, DAY)
    merged = log_folder.part_path(tmp_path, DAY, first.life, first.first, last.last)
    (tmp_path / first.key).rename(merged)  # as a merge names it
    (tmp_path / last.key).unlink()
    recover(tmp_path)
    assert ids(tmp_path) == ["r0", "r1"]
    assert (lost, journals(tmp_path)) == ([], [])


# Numbers


def told(known):
    return unpacked(known.frames())


def unpacked(data):
    found = []
    while data:
        size, kind = HEAD.unpack_from(data)
        found.append((kind, data[HEAD.size : 4 + size]))
        data = data[4 + size :]
    return found


def test_a_number_that_was_refused_is_refused_again_and_one_that_was_written_is_not_written_again():
    known = Confirmations()
    assert [known.is_new(n) for n in (1, 2, 3)] == [True] * 3
    assert told(known) == [(COMMITTED, COUNTER.pack(3))]
    assert [known.is_new(n) for n in (4, 5)] == [True] * 2
    assert known.refuse("full") == 2
    assert [kind for kind, _ in told(known)] == [REFUSED, COMMITTED]
    assert known.is_new(6)
    assert [kind for kind, _ in told(known)] == [COMMITTED]
    assert not known.waits
    assert [known.is_new(n) for n in (5, 6, 7)] == [False, False, True]
    assert [kind for kind, _ in told(known)] == [REFUSED, COMMITTED]
    known.record_recovered(9)
    assert (known.waits, known.is_new(9), known.is_new(10)) == (False, False, True)
