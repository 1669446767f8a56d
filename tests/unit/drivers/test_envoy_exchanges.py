"""The log of exchanges on disk, and what Envoy's lines mean."""

import contextlib
import errno
import re

import pytest

from cumulant.core.errors import StorageError
from cumulant.core.traffic import Exchange
from cumulant.drivers.envoy import folder as folders
from cumulant.drivers.envoy.access_log import AccessLogReader, LogLine, exchange_of
from cumulant.drivers.envoy.exchanges import ExchangeWriter, read_exchanges


def exchange(name):
    return Exchange(request=name, time=1, model="m", assigned="champion", served="champion", status=200, duration_us=1)


@pytest.fixture
def opened():
    with contextlib.ExitStack() as stack:

        def make(folder, **bounds):
            writer = ExchangeWriter(folder, **bounds)
            stack.callback(writer.close)
            return writer

        yield make


def names(found):
    return [one.request for one in found[0]]


def all_of(folder, limit=3):
    told, cursor = [], ""
    while True:
        found, cursor = read_exchanges(folder, cursor, limit)
        if not found:
            return told
        told += [one.request for one in found]


def test_files_change_and_no_exchange_is_read_twice(tmp_path, opened):
    writer = opened(tmp_path, size=1000)
    wanted = [f"r{number}" for number in range(100)]
    cursor, told = "", []
    for name in wanted:
        writer.write([exchange(name)])
        found, cursor = read_exchanges(tmp_path, cursor, 2)
        told += [one.request for one in found]
    assert told == wanted == all_of(tmp_path)
    assert len(list(tmp_path.glob("*.jsonl"))) > 5


def test_old_files_are_removed(tmp_path, opened):
    writer = opened(tmp_path, size=1000, most_files=3)
    first = None
    for number in range(100):
        writer.write([exchange(f"r{number}")])
        first = first or read_exchanges(tmp_path, "", 1)[1]
    assert len(list(tmp_path.glob("*.jsonl"))) == 3
    told = names(read_exchanges(tmp_path, first, 1000))
    assert told == [f"r{number}" for number in range(100 - len(told), 100)]


def test_half_a_line_is_not_read_and_never_continued(tmp_path, opened):
    writer = opened(tmp_path)
    writer.write([exchange("a")])
    path = next(tmp_path.glob("*.jsonl"))
    with path.open("ab") as file:
        file.write(b'{"request":"half')
    found, cursor = read_exchanges(tmp_path, "", 10)
    assert [one.request for one in found] == ["a"]
    assert read_exchanges(tmp_path, cursor, 10) == ([], cursor)
    opened(tmp_path).write([exchange("b")])
    assert names(read_exchanges(tmp_path, cursor, 10)) == ["b"]


@pytest.mark.parametrize("files", [3, 1], ids=["of a later file", "of a longer file"])
def test_a_cursor_of_a_log_that_was_removed_reads_all_of_the_new_one(tmp_path, opened, files):
    for number in range(files):
        writer = opened(tmp_path)
        writer.write([exchange(f"old {number}"), exchange("old")])
    _, cursor = read_exchanges(tmp_path, "", 100)
    for path in tmp_path.glob("*.jsonl"):
        path.unlink()
    assert read_exchanges(tmp_path, cursor, 100) == ([], cursor)
    opened(tmp_path).write([exchange("a")])
    found, cursor = read_exchanges(tmp_path, cursor, 100)
    assert [one.request for one in found] == ["a"]
    assert read_exchanges(tmp_path, cursor, 100) == ([], cursor)


def test_a_line_that_is_none_is_passed_over(tmp_path, opened):
    writer = opened(tmp_path)
    with next(tmp_path.glob("*.jsonl")).open("ab") as file:
        file.write(b"\0\0\0\n")
    writer.write([exchange("a")])
    assert all_of(tmp_path) == ["a"]


class Full:
    """A file on a disk that fills in the middle of a line, and has room again."""

    def __init__(self, file):
        self.file = file
        self.writes = 0

    def write(self, content):
        self.writes += 1
        if self.writes == 1:
            return self.file.write(content[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    def truncate(self, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self):
        self.file.close()


def test_a_full_disk_costs_lines_only(tmp_path, opened):
    writer = opened(tmp_path)
    writer.write([exchange("a")])
    writer._file = Full(writer._file)
    reader = AccessLogReader(None, writer, b"")
    reader._write([exchange("b"), exchange("c")])
    assert reader.lost == 2
    reader._write([exchange("d")])
    assert all_of(tmp_path) == ["a", "d"]


def line(**changes):
    told = {
        "request": "r",
        "start": "1000000",
        "took": "250",
        "model": "m|x",
        "revision": "7",
        "forced": "0",
        "assigned": "candidate",
        "served": "champion",
        "status": 200,
        "details": "via_upstream",
    }
    return LogLine(**{**told, **changes})


def test_an_answer_of_a_server():
    found = exchange_of(line(key="card 7"), b"salt")
    assert (found.assigned, found.served, found.rescued, found.fault) == ("candidate", "champion", True, "")
    assert (found.time, found.duration_us, found.revision, found.forced) == (1_000_250, 250, 7, False)
    assert re.fullmatch("#[0-9a-f]{32}", found.key)
    assert exchange_of(line(key="card 7"), b"").key == ""


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        ("UT", "timeout"),
        ("UF,URX", "connect"),
        ("UH", "connect"),
        ("UC", "reset"),
        ("UO", "overflow"),
        ("RL", "rate"),
        ("DC", ""),
    ],
)
def test_no_answer_of_a_server(flags, fault):
    found = exchange_of(line(flags=flags, details="local", status=0), b"")
    assert (found.fault, found.served, found.status) == (fault, "", 499)


@pytest.mark.parametrize("flags", ["SI", "DT"])
def test_a_caller_that_was_too_slow_is_no_fault_of_an_arm(flags):
    assert exchange_of(line(flags=flags, details="local", status=408), b"").fault == ""
    assert exchange_of(line(flags=flags, details="local", status=504), b"").fault == "timeout"


def test_the_arm_of_a_request_that_was_refused_before_it_was_sent():
    found = exchange_of(line(assigned=None, cluster="m|x|candidate|abc+def", details="local", status=429), b"")
    assert found.assigned == "candidate"
    assert exchange_of(line(model=None), b"") is None


def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    folders.write_file(path, b"old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders.os, "fsync", full)  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match="No space left"):
        folders.write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_taken_away(tmp_path):
    folder = folders.Folder(tmp_path)
    with folder.lock_routes():
        folder.write_state(folders.GatewayState(generation=3))
        (tmp_path / ".state.json.77").write_bytes(b'{"gener')
        (tmp_path / "xds" / "routes" / ".routes.json.77").write_bytes(b"{")
    assert folder.state().generation == 3
    with folder.lock_routes():
        left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"state.json", "apply.lock"}


def test_a_disk_that_stays_full_takes_nothing_that_was_written(tmp_path, opened, monkeypatch):
    writer = opened(tmp_path, most_files=3)
    writer.write([exchange("before")])

    class Filled:
        def __init__(self, file):
            self.file = file

        def write(self, content):
            self.file.write(content[:20])
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name):
            return getattr(self.file, name)

    real = ExchangeWriter._start_file
    monkeypatch.setattr(
        ExchangeWriter, "_start_file", lambda self: (real(self), setattr(self, "_file", Filled(self._file)))
    )
    writer._file = Filled(writer._file)
    for _ in range(50):
        with pytest.raises(OSError, match="No space"):
            writer.write([exchange("lost")])
    writer._file = writer._file.file
    writer.write([exchange("after")])
    assert all_of(tmp_path) == ["before", "after"]
    assert len(list(tmp_path.iterdir())) == 1


def test_what_callers_sent_is_for_the_gateways_user_alone(tmp_path, opened):
    opened(tmp_path).write([exchange("a")])
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}
