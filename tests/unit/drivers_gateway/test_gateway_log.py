"""The log of exchanges: each told once, half lines never, old files removed."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.traffic import Exchange
from cumulant.drivers.local.gateway import exchange_log
from cumulant.drivers.local.gateway.exchange_log import ExchangeLog, numbers, path_of, read


def exchange(name: str) -> Exchange:
    return Exchange(request=name, time=1, model="m", assigned="champion", served="champion", status=200, duration_us=5)


def line(name: str) -> bytes:
    return msgspec.json.encode(exchange(name)) + b"\n"


def test_what_was_put_is_read_over_several_files(tmp_path: Path) -> None:
    names = [f"r{number}" for number in range(500)]
    for first in range(0, 500, 100):
        log = ExchangeLog(tmp_path, file_bytes=1000)
        for name in names[first : first + 100]:
            log.put(exchange(name))
        log.close()
    assert len(numbers(tmp_path)) == 5
    found, cursor = read(tmp_path, "", 10_000)
    assert [one.request for one in found] == names
    assert read(tmp_path, cursor, 10)[0] == []


def test_old_files_are_removed_and_a_cursor_into_them_goes_on(tmp_path: Path) -> None:
    for number in range(6):
        log = ExchangeLog(tmp_path, files=3)
        log.put(exchange(str(number)))
        log.close()
    assert numbers(tmp_path) == [4, 5, 6]
    assert [one.request for one in read(tmp_path, "1:17", 10)[0]] == ["3", "4", "5"]


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_reader_beside_a_writer_is_told_each_once(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The writer's bytes appear in any pieces; a killed writer's half line is never told."""
    folder = tmp_path_factory.mktemp("log")
    told: list[str] = []
    expected: list[str] = []
    cursor = ""
    for number in range(1, 4):
        names = [f"{number}-{at}" for at in range(data.draw(st.integers(0, 6)))]
        whole = b"".join(line(name) for name in names)
        lost = line("half")[: data.draw(st.integers(0, 20))]
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
        expected += names
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
            with path_of(folder, number).open("ab") as file:
                file.write(whole[start:end])
            found, cursor = read(folder, cursor, data.draw(st.integers(1, 5)))
            told += [one.request for one in found]
        with path_of(folder, number).open("ab") as file:
            file.write(lost)
    while (step := read(folder, cursor, 3))[0]:
        told += [one.request for one in step[0]]
        cursor = step[1]
    assert told == expected


def test_a_full_disk_drops_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    full = True

    def disk(handle: int, data: bytes) -> int:
        if not full:
            return write(handle, data)
        if len(data) > 10:
            return write(handle, data[:10])
        raise OSError(28, "No space left on device")

    log = ExchangeLog(tmp_path)
    log._ended.set()
    log._thread.join()
    monkeypatch.setattr(exchange_log.os, "write", disk)
    monkeypatch.setattr(exchange_log.os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(28, "no")))
    # One write of 10 bytes, then nothing more fits.
    monkeypatch.setattr(exchange_log, "_encode_lines", lambda batch: line("lost")[:20] if full else line("kept"))
    log.put(exchange("lost"))
    log._flush()
    full = False
    log.put(exchange("kept"))
    log._flush()
    os.close(log._handle)
    assert log.dropped == 1
    assert [one.request for one in read(tmp_path, "", 10)[0]] == ["kept"]


@pytest.mark.parametrize("cursor", ["", "x", "1", "1:", "-1:3", "9999:9", "1:999999"])
def test_any_cursor_is_taken(tmp_path: Path, cursor: str) -> None:
    assert read(tmp_path, cursor, 10) == ([], cursor)


def test_a_disk_that_stays_full_takes_nothing_that_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, room = os.write, 200
    log = ExchangeLog(tmp_path, files=3)
    log._ended.set()
    log._thread.join()
    log.put(exchange("before"))
    log._flush()

    def disk(handle: int, data: bytes) -> int:
        if len(data) > room:
            write(handle, data[:room])
            raise OSError(28, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr(exchange_log.os, "write", disk)
    for _ in range(50):
        for number in range(4):
            log.put(exchange(f"lost{number}"))
        log._flush()
    log.put(exchange("after"))
    log._flush()
    os.close(log._handle)
    found = [one.request for one in read(tmp_path, "", 1000)[0]]
    assert (found[0], found[-1]) == ("before", "after")
    assert len(numbers(tmp_path)) == 1
