"""Rules of the port `log` for parts whose content is replaced."""

from __future__ import annotations

import threading

import pytest

from cumulant.ports.log import Log, PartInfo
from cumulant.testing.conformance.gaps import Suite
from cumulant.testing.log import DAY, all_lines, append_lines, lines_of, write_half


class LogReplacementConformance(Suite):
    """Part of `LogConformance`, whose fixture `log` it uses."""

    def test_a_part_is_replaced_whole(self, log: Log) -> None:
        parts = [PartInfo(DAY, "a", number, number) for number in (1, 2)]
        for part in parts:
            append_lines(log, part, [f"{part.first}/ann", f"{part.first}/bob"])
        read = log.read()
        before = log.parts(DAY)
        with log.open(before[0]) as opened:
            with log.replace(parts[0]) as stream:
                stream.write(b"1/bob\n")
                assert lines_of(log, parts) == ["1/ann", "1/bob", "2/ann", "2/bob"]
            assert opened.read() == b"1/ann\n1/bob\n"
        assert all_lines(log) == ["1/bob", "2/ann", "2/bob"]
        assert lines_of(log, log.parts(DAY)) == lines_of(log, parts) == all_lines(log)
        after = log.parts(DAY)
        assert [part.key for part in after] == [part.key for part in before]
        assert after[0].stamp != before[0].stamp
        assert after[1] == before[1]
        assert log.read(read.cursor).parts == []
        append_lines(log, parts[0], ["1/ann", "1/bob"])
        assert all_lines(log) == ["1/bob", "2/ann", "2/bob"]

    def test_a_replacement_that_failed_changes_nothing(self, log: Log) -> None:
        part = PartInfo(DAY, "a", 1, 1)
        append_lines(log, part, ["whole"])
        with pytest.raises(KeyboardInterrupt):
            write_half(log.replace(part))
        assert all_lines(log) == ["whole"]

    def test_readers_during_replacements_get_one_content_whole(self, log: Log) -> None:
        part = PartInfo(DAY, "a", 1, 1)
        contents = [[f"{number}/{row}" for row in range(2_000)] for number in range(10)]
        append_lines(log, part, contents[0])
        seen: list[list[str]] = []

        def read() -> None:
            while not ended.is_set():
                seen.append(all_lines(log))

        ended = threading.Event()
        reader = threading.Thread(target=read)
        reader.start()
        try:
            for content in contents[1:]:
                with log.replace(part) as stream:
                    stream.write("".join(f"{line}\n" for line in content).encode())
        finally:
            ended.set()
            reader.join(60)
        assert all(lines in contents for lines in seen)
        assert all_lines(log) == contents[-1]
