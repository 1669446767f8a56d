"""Drivers of the port `streams` keep its rules: the embedded one here, and a broker in `test_live_kafka`."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from cumulant.core.errors import NotFoundError, UsageError
from cumulant.drivers.folder import streams as driver
from cumulant.drivers.folder.streams import FolderStreams
from cumulant.ports.streams import Bounds, LostMessagesError, Messages
from cumulant.testing.conformance.streams import StreamsConformance


@pytest.fixture
def streams(tmp_path):
    return FolderStreams(f"folder://{tmp_path}/streams")


class TestFolderStreams(StreamsConformance):
    @pytest.fixture
    def new_topic(self, tmp_path):
        def create(partitions):
            folder = tmp_path / "streams" / "payments"
            folder.mkdir(parents=True)
            for number in range(partitions):
                (folder / f"{number}.jsonl").touch()
            return folder.name

        return create


def test_a_torn_last_line_is_not_read_until_it_ends(streams, tmp_path):
    end = streams.produce("t", [b"whole"], partition=0)
    file = tmp_path / "streams" / "t" / "0.jsonl"
    with file.open("ab") as torn:
        torn.write(b'{"half": ')
    assert streams.bounds("t") == {0: Bounds(0, end)}
    assert streams.lag("t", {0: 0}) == {0: 1}
    with streams.consume("t", {0: 0}) as consumer:
        assert [batch.values for batch in consumer.read(1 << 20, 0.0)] == [[b"whole"]]
        assert consumer.read(1 << 20, 0.0) == []
        with file.open("ab") as torn:
            torn.write(b"1}\n")
        (batch,) = consumer.read(1 << 20, 0.0)
        assert (batch.values, batch.positions) == ([b'{"half": 1}'], [end])


def test_a_long_line_is_read_again_only_where_it_grew(streams, tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "_LONGEST", 1 << 20)
    end = streams.produce("t", [b"whole"], partition=0)
    file = tmp_path / "streams" / "t" / "0.jsonl"
    searched = []
    search = driver._next_line_end
    monkeypatch.setattr(driver, "_next_line_end", lambda file, start: (searched.append(start), search(file, start))[1])
    with streams.consume("t", {0: end}) as consumer:
        for part in (b"x" * (3 << 20), b"y" * 10):
            with file.open("ab") as torn:
                torn.write(part)
            assert consumer.read(1000, 0.2) == []
        with file.open("ab") as torn:
            torn.write(b"\nnext\n")
        (batch,) = consumer.read(1000, 0.0)
        after = end + (3 << 20) + 11
        assert (batch.values, batch.positions, batch.next) == ([b"x" * (1 << 20)], [end], after)
        assert consumer.read(1000, 0.0) == [Messages(0, [b"next"], [after], after + 5)]
    assert searched == [end + 1000, end + (3 << 20), end + (3 << 20) + 10]


def test_the_next_writer_removes_what_a_killed_one_began(streams, tmp_path):
    end = streams.produce("t", [b"whole"], partition=0)
    with (tmp_path / "streams" / "t" / "0.jsonl").open("ab") as torn:
        torn.write(b"x" * (2 << 20))
    streams.produce("t", [b"next"], partition=0)
    with streams.consume("t", {0: 0}) as consumer:
        (batch,) = consumer.read(1 << 20, 0.0)
    assert (batch.values, batch.positions) == ([b"whole", b"next"], [0, end])


def test_a_killed_writer_leaves_whole_lines(streams, tmp_path):
    """Whatever was reported as written is there, once and in order, and nothing else is but whole messages."""
    script = textwrap.dedent("""
        import sys
        from cumulant.drivers.folder.streams import FolderStreams
        streams = FolderStreams(sys.argv[1])
        for number in range(10_000):
            streams.produce("t", [b"%d" % number * 2000], partition=0)
            print(number, flush=True)
    """)
    command = [sys.executable, "-c", script, f"folder://{tmp_path}/streams"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        reported = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        reported += [int(line) for line in process.stdout.read().split()]
    streams.produce("t", [b"end"], partition=0)
    with streams.consume("t", {0: 0}) as consumer:
        values = [value for batch in consumer.read(1 << 30, 0.0) for value in batch.values]
    assert values.pop() == b"end"
    assert values == [b"%d" % number * 2000 for number in range(len(values))]
    assert len(values) >= len(reported)


def test_a_message_with_a_line_end_is_refused(streams):
    with pytest.raises(UsageError, match="line end"):
        streams.produce("t", [b"a\nb"], partition=0)


def test_a_file_that_became_shorter_or_went_away(streams, tmp_path):
    streams.produce("t", [b"one", b"two"], partition=0)
    file = tmp_path / "streams" / "t" / "0.jsonl"
    with streams.consume("t", {0: 0}) as consumer:
        consumer.read(1 << 20, 0.0)
        os.truncate(file, 4)
        with pytest.raises(LostMessagesError):
            consumer.read(1 << 20, 0.0)
        file.unlink()
        with pytest.raises(NotFoundError):
            consumer.read(1 << 20, 0.0)


def test_a_file_that_was_written_anew(streams, tmp_path):
    end = streams.produce("t", [b"one", b"two"], partition=0)
    file = tmp_path / "streams" / "t" / "0.jsonl"
    with streams.consume("t", {0: 0}) as consumer:
        consumer.read(1 << 20, 0.0)
        other = file.with_name("other")
        other.write_bytes(b"one\ntwo\nand more\n")
        other.rename(file)
        with pytest.raises(LostMessagesError, match="not the one that was read before"):
            consumer.read(1 << 20, 0.0)
    file.write_bytes(b"one\ntwo\n")
    with streams.consume("t", {0: end}) as consumer:
        file.write_bytes(b'{"longer than before": 1}\n')
        with pytest.raises(LostMessagesError, match="not the one"):
            consumer.read(1 << 20, 0.0)
    with pytest.raises(LostMessagesError, match="not the one"), streams.consume("t", {0: end}):
        pass


def test_a_similar_topic_is_named(streams):
    streams.produce("payments", [b"1"], partition=0)
    with pytest.raises(NotFoundError, match="no topic") as error:
        streams.partitions("payment")
    assert "payments" in error.value.full_text


def test_a_folder_without_a_partition_is_no_unknown_topic(streams, tmp_path):
    folder = tmp_path / "streams" / "rides"
    folder.mkdir(parents=True)
    with pytest.raises(NotFoundError, match='topic "rides" has no file of a partition') as error:
        streams.partitions("rides")
    assert error.value.hint == "its messages are lines of 0.jsonl, 1.jsonl, ... there"
