"""Rules of the port `log`. Each is checked against a slow oracle: the set of records that were acknowledged."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import NamedTuple

import pytest

from cumulant.core.errors import UsageError
from cumulant.ports.log import Log, PartInfo, current_parts, split_covered
from cumulant.testing.conformance.logs.replacement import LogReplacementConformance
from cumulant.testing.log import (
    DAY,
    all_lines,
    append_lines,
    compact_some,
    lines_of,
    open_log_of,
    seeded,
    write_half,
    write_parts,
)

_MANY = 10_000


class LogAddress(NamedTuple):
    """What other processes open the same log by: the client as `module:Class`, and its URL."""

    client: str
    url: str


class LogConformance(LogReplacementConformance):
    """Give fixtures `log`, an empty log, and `address`, by which other processes open it.

    Gaps: `processes` (the log is in the memory of one), and `many` where so many parts take too long.
    """

    @pytest.fixture
    def log(self) -> Log:
        raise NotImplementedError

    @pytest.fixture
    def address(self) -> LogAddress:
        raise NotImplementedError

    @pytest.fixture
    def processes(self) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Writers that the test starts; those that still run are killed after it."""
        started: list[subprocess.Popen[bytes]] = []
        yield started
        for process in started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def writer(self, address: LogAddress, life: str, first: int, count: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "cumulant.testing.log", *address, life, str(first), str(count)]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    def test_an_empty_log(self, log: Log) -> None:
        assert log.days() == []
        assert log.parts(DAY) == []
        assert log.read().parts == []
        assert log.state("workers/a.json") is None
        assert log.states("workers") == []
        log.delete_day(DAY)
        log.delete([PartInfo(DAY, "a", 1, 1)])
        log.delete_state("workers/a.json")
        with pytest.raises(FileNotFoundError):
            log.open(PartInfo(DAY, "a", 1, 1))

    def test_a_part_is_read_as_it_was_appended(self, log: Log) -> None:
        before = time.time()
        content = bytes(range(256)) * 1000
        with log.append(PartInfo(DAY, "20261124T000000.7.ab12cd", 1, 1)) as stream:
            stream.write(content[:1000])
            assert log.parts(DAY) == []
            stream.write(content[1000:])
        (part,) = log.parts(DAY)
        assert (part.day, part.life, part.first, part.last) == (DAY, "20261124T000000.7.ab12cd", 1, 1)
        assert part.bytes == len(content)
        assert abs(part.modified - before) < 60
        assert part.stamp
        with log.open(part) as opened:
            assert opened.read() == content
            opened.seek(-3, os.SEEK_END)
            assert opened.read() == content[-3:]
            assert opened.fileno() > 0  # a real file, which engines map
        assert log.days() == [DAY]

    def test_a_part_whose_writing_failed_is_not_there(self, log: Log) -> None:
        part = PartInfo(DAY, "a", 1, 1)
        with pytest.raises(KeyboardInterrupt):
            write_half(log.append(part))
        assert log.parts(DAY) == []
        append_lines(log, part, ["whole"])
        assert all_lines(log) == ["whole"]

    def test_of_one_name_there_is_one_content(self, log: Log) -> None:
        append_lines(log, PartInfo(DAY, "a", 1, 1), ["first"])
        append_lines(log, PartInfo(DAY, "a", 1, 1), ["second"])
        assert all_lines(log) == ["first"]

    def test_of_many_writers_of_a_name_one_wins_and_its_content_is_whole(self, log: Log) -> None:
        part = PartInfo(DAY, "a", 1, 1)
        contents = [[f"{writer}/{row}" for row in range(2_000)] for writer in range(8)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda lines: append_lines(log, part, lines), contents))
        assert all_lines(log) in contents
        assert log.parts(DAY)[0].name == part.name

    def test_parts_of_another_format(self, log: Log) -> None:
        part = PartInfo(DAY, "post-1f", 1, 1, "jsonl")
        append_lines(log, part, ["{}"])
        (listed,) = log.parts(DAY)
        assert (listed.suffix, listed.name, listed.key) == ("jsonl", "post-1f-000001-000001.jsonl", part.key)
        assert all_lines(log) == ["{}"]

    def test_a_part_that_was_not_listed_is_opened_as_it_is_now(self, log: Log) -> None:
        part = PartInfo(DAY, "a", 1, 1)
        for content in ("first", "second"):
            append_lines(log, part, [content])
            with log.open(part) as stream:
                assert stream.read().decode() == f"{content}\n"
            log.delete([part])
            with pytest.raises(FileNotFoundError):
                log.open(part)

    def test_parts_that_are_fetched_before_are_read_as_others(self, log: Log) -> None:
        deleted, remaining, later = (PartInfo(DAY, "a", number, number) for number in (1, 2, 3))
        for part in (deleted, remaining):
            append_lines(log, part, [part.name])
        listed = log.parts(DAY)
        log.delete([deleted])
        log.prefetch([*listed, later])
        append_lines(log, later, [later.name])
        assert all_lines(log) == [remaining.name, later.name]

    def test_order(self, log: Log) -> None:
        for day in (DAY, DAY - timedelta(days=400), date(1969, 12, 31), DAY + timedelta(days=400)):
            for life, first, last in (
                ("b", 1, 1),
                ("a", 10, 10),
                ("a", 9, 9),
                ("a", 9, 12),
                ("a", 1_000_000, 1_000_001),
            ):
                append_lines(log, PartInfo(day, life, first, last), [f"{day}"])
        assert log.days() == sorted(log.days())
        assert len(log.days()) == 4
        for day in log.days():
            names = [(part.life, part.first, part.last) for part in log.parts(day)]
            assert names == [("a", 9, 12), ("a", 9, 9), ("a", 10, 10), ("a", 1_000_000, 1_000_001), ("b", 1, 1)]
        days = [part.day for part in log.read().parts]
        assert days == sorted(days)

    def test_each_part_is_read_once_by_a_cursor(self, log: Log) -> None:
        chance = seeded(1)
        numbers = [(life, number) for life in ("a", "b.c", "d-1") for number in range(1, 21)]
        chance.shuffle(numbers)  # lives at once, and parts of one that become visible late
        cursor, seen = "", Counter[str]()
        while numbers:
            for life, number in numbers[: (some := chance.randint(1, 9))]:
                append_lines(
                    log, PartInfo(DAY + timedelta(days=number % 3), life, number, number), [f"{life}/{number}"]
                )
            numbers = numbers[some:]
            batch = log.read(cursor, limit=chance.choice([None, 1, 4]))
            cursor = batch.cursor
            seen.update(lines_of(log, batch.parts))
        while (batch := log.read(cursor, limit=7)).parts:
            assert len(batch.parts) <= 7
            seen.update(lines_of(log, batch.parts))
            cursor = batch.cursor
        assert seen == Counter({f"{life}/{number}": 1 for life in ("a", "b.c", "d-1") for number in range(1, 21)})
        assert log.read(cursor) == ([], cursor)

    def test_a_cursor_is_opaque_and_checked(self, log: Log) -> None:
        append_lines(log, PartInfo(DAY, "a", 1, 1), ["1"])
        assert isinstance(log.read().cursor, str)
        for text in ("{", "7", '{"a": "b"}', "\x00"):
            with pytest.raises(UsageError):
                log.read(text)

    def test_a_cursor_forgets_days_that_are_gone(self, log: Log) -> None:
        cursor = ""
        for number in range(40):
            append_lines(log, PartInfo(DAY + timedelta(days=number), "a", number, number), [str(number)])
            batch = log.read(cursor)
            assert [part.first for part in batch.parts] == [number]
            cursor = batch.cursor
            if number:
                log.delete_day(DAY + timedelta(days=number - 1))
        assert len(cursor) < 100

    def test_compaction_gives_each_record_once(self, log: Log) -> None:
        chance = seeded(2)
        expected: list[str] = []
        cursor, seen = "", set[str]()
        for number in range(1, 61):
            append_lines(log, PartInfo(DAY, "a", number, number), [f"a/{number}"])
            expected.append(f"a/{number}")
            if number % 5 == 0:
                compact_some(log, chance)
                assert sorted(all_lines(log)) == sorted(expected)
            if number % 7 == 0:
                batch = log.read(cursor)
                cursor = batch.cursor
                seen.update(lines_of(log, batch.parts))
                assert seen == set(expected)
                assert log.read(cursor).parts == []

    def test_a_part_that_was_read_and_then_compacted_alone_is_not_read_again(self, log: Log) -> None:
        write_parts(log, "a", range(1, 9), days=1)
        cursor = log.read().cursor
        while compact_some(log, seeded(3)):
            pass
        assert log.read(cursor).parts == []

    def test_a_reader_during_compaction(self, log: Log) -> None:
        write_parts(log, "a", range(1, 31), days=1)
        expected = sorted(f"a/{number}/{row}" for number in range(1, 31) for row in range(3))
        ended, errors = threading.Event(), list[BaseException]()

        def compact() -> None:
            try:
                chance = seeded(4)
                while compact_some(log, chance):
                    pass
            except BaseException as error:  # noqa: BLE001 - for the test's own thread
                errors.append(error)
            ended.set()

        thread = threading.Thread(target=compact)
        thread.start()
        while not ended.is_set():
            assert sorted(all_lines(log)) == expected
        thread.join()
        assert errors == []
        assert sorted(all_lines(log)) == expected

    def test_an_open_part_stays_readable(self, log: Log) -> None:
        append_lines(log, PartInfo(DAY, "a", 1, 1), ["x" * 100_000])
        (part,) = log.parts(DAY)
        with log.open(part) as stream:
            log.delete([part])
            assert log.parts(DAY) == []
            assert stream.read() == b"x" * 100_000 + b"\n"

    def test_retention(self, log: Log) -> None:
        write_parts(log, "a", range(1, 10), days=3)
        log.delete_day(DAY)
        assert [day for day in log.days() if log.parts(day)] == [DAY + timedelta(days=1), DAY + timedelta(days=2)]
        assert log.parts(DAY) == []
        assert len(all_lines(log)) == 18
        for part in log.parts(DAY + timedelta(days=1)):
            log.delete([part])
        assert len(all_lines(log)) == 9

    def test_a_damaged_part_is_set_aside(self, log: Log) -> None:
        write_parts(log, "a", range(1, 4), days=1)
        parts = log.parts(DAY)
        log.set_aside(parts[1])
        log.set_aside(parts[1])
        assert [part.first for part in log.parts(DAY)] == [1, 3]
        log.delete_day(DAY)
        assert log.parts(DAY) == []

    def test_records_of_writers(self, log: Log) -> None:
        log.put_state("workers/a.json", b"1")
        log.put_state("workers/b.json", b"2")
        log.put_state("workers/a.json", b"3")
        log.put_state(".retention-60.json", b"4")
        assert sorted(log.states("workers")) == [b"2", b"3"]
        assert log.state("workers/a.json") == b"3"
        assert log.state(".retention-60.json") == b"4"
        log.delete_state("workers/a.json")
        assert log.states("workers") == [b"2"]
        assert log.days() == []

    def test_maintenance_is_done_by_one_at_a_time(self, log: Log) -> None:
        for _ in range(40):
            with log.maintenance() as mine:
                assert mine
                with log.maintenance() as second:
                    assert not second
        with contextlib.suppress(KeyboardInterrupt), log.maintenance() as mine:
            assert mine
            raise KeyboardInterrupt
        with log.maintenance() as mine:
            assert mine
        assert log.days() == []

    def test_writers_in_several_processes(
        self, log: Log, address: LogAddress, processes: list[subprocess.Popen[bytes]]
    ) -> None:
        if "processes" in self.gaps:
            pytest.skip(self.gaps["processes"].reason)
        processes += [self.writer(address, life, 1, 25) for life in ("a", "b", "c")]
        processes.append(self.writer(address, "a", 1, 25))  # an upload that is tried again elsewhere
        cursor, seen = "", Counter[str]()
        while any(process.poll() is None for process in processes):
            batch = log.read(cursor)
            cursor = batch.cursor
            seen.update(lines_of(log, batch.parts))
        seen.update(lines_of(log, log.read(cursor).parts))
        assert all(process.returncode == 0 for process in processes)
        expected = {f"{life}/{number}/{row}" for life in "abc" for number in range(1, 26) for row in range(3)}
        assert seen == Counter(dict.fromkeys(expected, 1))

    def test_a_writer_that_is_killed(
        self, log: Log, address: LogAddress, processes: list[subprocess.Popen[bytes]]
    ) -> None:
        if "processes" in self.gaps:
            pytest.skip(self.gaps["processes"].reason)
        chance, acknowledged = seeded(5), dict[str, int]()
        for attempt in range(4):
            life = f"life{attempt}"
            process = self.writer(address, life, 1, 100_000)
            processes.append(process)
            assert process.stdout is not None
            for _ in range(chance.randint(1, 20)):
                process.stdout.readline()
            time.sleep(chance.random() * 0.01)  # anywhere in the next part
            process.send_signal(signal.SIGKILL)
            process.wait()
            rest = process.stdout.read().split()
            written = len([part for part in current_parts(log) if part.life == life])
            acknowledged[life] = max([int(line) for line in rest], default=written)
            assert written >= acknowledged[life]
        lines = Counter(all_lines(log))
        for life, last in acknowledged.items():
            for number in range(1, last + 1):
                assert all(lines[f"{life}/{number}/{row}"] == 1 for row in range(3))
        assert set(lines.values()) == {1}
        # Each part is whole, the one that was written when the kill came too.
        assert all(len(lines_of(log, [part])) == 3 for part in current_parts(log))

    def test_a_clock_that_jumps(self, log: Log) -> None:
        lives = [f"{year}0101T000000.1.aa" for year in (2026, 1971, 2099, 2026, 2025)]
        cursor, seen = "", Counter[str]()
        for step, life in enumerate(lives):
            day = date(int(life[:4]), 1, 1)
            append_lines(log, PartInfo(day, f"{life}{step}", 1, 1), [str(step)])
            batch = log.read(cursor)
            cursor = batch.cursor
            seen.update(lines_of(log, batch.parts))
        assert seen == Counter({str(step): 1 for step in range(5)})

    def test_another_client_reads_it(self, log: Log, address: LogAddress) -> None:
        if "processes" in self.gaps:
            pytest.skip(self.gaps["processes"].reason)
        write_parts(log, "a", range(1, 5))
        other = open_log_of(*address)
        assert other.location == log.location
        assert sorted(all_lines(other)) == sorted(all_lines(log))
        cursor = log.read().cursor
        assert other.read(cursor).parts == []

    def test_many_parts(self, log: Log) -> None:
        count = 300 if "many" in self.gaps else _MANY

        def append(number: int) -> None:
            with log.append(PartInfo(DAY, "a", number, number)) as stream:
                stream.write(b"%d\n" % number)

        with ThreadPoolExecutor(32) as threads:  # each waits for the disk
            list(threads.map(append, range(1, count + 1)))
        parts = log.parts(DAY)
        assert [part.first for part in parts] == list(range(1, count + 1))
        assert split_covered(parts) == (parts, [])
        batch = log.read(limit=count - 1)
        assert len(batch.parts) == count - 1
        assert [part.first for part in log.read(batch.cursor).parts] == [count]
        assert len(batch.cursor) < 200
