"""Rules of the port `files`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cumulant.core.errors import DataError
from cumulant.ports.files import FileInfo, Files
from cumulant.testing.conformance.gaps import Suite

Write = Callable[[str, bytes], None]
Remove = Callable[[str], None]

TREE = {
    "data/flights/2013-01.csv": b"a,b\n",
    "data/flights/2013-02.csv": b"a,b\n1,2\n",
    "data/flights/deep/2013-03.csv": b"",
    "data/flights/notes.txt": b"x",
    "data/weather.csv": b"w",
    "data/flights2.csv": b"other",
}


class FilesConformance(Suite):
    """Give the fixtures `files`, `base` (what patterns start with), `write` and `remove` (name under base)."""

    @pytest.fixture
    def files(self) -> Files:
        raise NotImplementedError

    @pytest.fixture
    def base(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def write(self) -> Write:
        raise NotImplementedError

    @pytest.fixture
    def remove(self) -> Remove:
        raise NotImplementedError

    @pytest.fixture
    def tree(self, write: Write) -> None:
        for name, content in TREE.items():
            write(name, content)

    @pytest.mark.usefixtures("tree")
    @pytest.mark.parametrize(
        ("pattern", "names"),
        [
            ("data/weather.csv", ["data/weather.csv"]),
            ("data/flights", [name for name in TREE if name.startswith("data/flights/")]),
            ("data/flights/", [name for name in TREE if name.startswith("data/flights/")]),
            ("data/flights/*.csv", ["data/flights/2013-01.csv", "data/flights/2013-02.csv"]),
            ("data/flights/2013-0[2-9].csv", ["data/flights/2013-02.csv"]),
            ("data/flights/2013-??.csv", ["data/flights/2013-01.csv", "data/flights/2013-02.csv"]),
            ("data/**/*.csv", [name for name in TREE if name.endswith(".csv")]),
            ("data/*/2013-01.csv", ["data/flights/2013-01.csv"]),
            ("data/flights/2013", []),
            ("data/nothing", []),
            ("nothing/*.csv", []),
        ],
    )
    def test_patterns(self, files: Files, base: str, pattern: str, names: list[str]) -> None:
        infos = files.list(f"{base}{pattern}")
        assert [info.url.removeprefix(base) for info in infos] == sorted(names)
        assert [info.bytes for info in infos] == [len(TREE[name]) for name in sorted(names)]

    def test_a_name_that_looks_like_a_pattern(self, files: Files, base: str, write: Write) -> None:
        write("data[1].csv", b"x")
        write("data1.csv", b"y")
        assert [info.url for info in files.list(f"{base}data[1].csv")] == [f"{base}data[1].csv"]

    @pytest.mark.usefixtures("tree")
    def test_fetch(self, files: Files, base: str) -> None:
        for info in files.list(f"{base}data/**/*.csv"):
            path = files.fetch(info)
            assert path.read_bytes() == TREE[info.url.removeprefix(base)]
            assert path.suffix == ".csv"

    def test_the_stamp_changes_with_the_content(self, files: Files, base: str, write: Write) -> None:
        write("a.csv", b"one")
        before = files.list(f"{base}a.csv")
        assert files.list(f"{base}a.csv") == before
        write("a.csv", b"two")
        after = files.list(f"{base}a.csv")
        assert after[0].stamp != before[0].stamp
        assert files.fetch(after[0]).read_bytes() == b"two"

    def test_a_file_that_is_gone(self, files: Files, base: str, write: Write, remove: Remove) -> None:
        write("a.csv", b"one")
        (info,) = files.list(f"{base}a.csv")
        remove("a.csv")
        assert files.list(f"{base}a.csv") == []
        with pytest.raises(DataError):
            files.fetch(info)
        with pytest.raises(DataError):
            files.fetch(FileInfo(f"{base}never.csv", 1, "x"))
