"""Files that are read in pieces: the same snapshot as of the whole file, in memory that does not grow with the rows."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal
from pyarrow import orc

from cumulant.core.errors import DataError, UsageError
from cumulant.data.checks.verdict import SourceBreachError
from cumulant.data.files import large_files
from cumulant.data.parts import group_repeats, large_parts, part_store
from cumulant.data.parts.group_repeats import find_repeats
from cumulant.data.parts.spill import MemoryBudget
from cumulant.data.snapshot import scan
from cumulant.data.spec import SourceSpec
from cumulant.data.text import csv_text

RULES = {"n": {"min": 0}, "kind": {"in": ["A", "B"]}, "part": {"nulls": "50%"}}


def table(rows: int = 900) -> pl.DataFrame:
    rng = np.random.default_rng(5)
    return pl.DataFrame(
        {
            "id": [number if number % 97 else number // 2 for number in range(rows)],  # some keys come twice, far apart
            "at": [f"2024-01-{1 + number * 9 // rows:02}T10:00:00Z" for number in range(rows)],
            "n": rng.integers(-1, 40, rows),
            "x": [number if number < 500 else number + 0.5 for number in range(rows)],
            "kind": rng.choice(["A", "B", "C"], rows, p=[0.6, 0.395, 0.005]),
            "part": [None if number < 300 else number for number in range(rows)],
        },
        strict=False,
    )


def in_pieces(monkeypatch, rows: int = 50) -> list[int]:
    """Read every file in pieces of about so many rows; returns a list to which each piece adds its rows."""
    for name, value in {"LARGE_TEXT": 8, "LARGE_ROWS": 1, "_LARGE_BYTES": 1, "_ROWS": rows}.items():
        monkeypatch.setattr(large_files, name, value)
    monkeypatch.setattr(csv_text, "_MANY", 0)  # small texts are read as large ones are
    seen: list[int] = []
    check_rows = large_parts.check_rows  # type: ignore[attr-defined]

    def counted(frame, plan, shop):
        seen.append(frame.height)
        return check_rows(frame, plan, shop)

    monkeypatch.setattr(large_parts, "check_rows", counted)
    return seen


def both(place, monkeypatch, **declared):
    """The snapshots of a source, read whole and in pieces."""

    def ingest():
        try:
            return place.ingest(**declared)
        except SourceBreachError as breach:
            return breach.snapshot

    whole, place.stored = ingest(), place.tables
    place.tables = type(place.tables)(f"file://{place.root / 'others'}")
    seen = in_pieces(monkeypatch)
    return whole, ingest(), seen


def same(place, whole, pieces) -> None:
    for name in ("id", "fields", "rows_in", "rows_passed", "rows_quarantined", "rows_dropped", "breaches", "checks"):
        assert getattr(pieces, name) == getattr(whole, name), name
    stored = place.stored
    assert_frame_equal(scan(pieces, place.tables).collect(), scan(whole, stored).collect())
    if whole.quarantine is not None:
        order = ["__row", "__rule"]
        left, right = place.tables.scan(pieces.quarantine).collect(), stored.scan(whole.quarantine).collect()
        assert_frame_equal(left.sort(order), right.sort(order), check_column_order=False)
    for one, other in zip(pieces.profile.columns, whole.profile.columns, strict=True):
        for name in ("rows", "nulls", "min", "max"):
            assert getattr(one, name) == getattr(other, name), (one.name, name)
        assert one.distinct == pytest.approx(other.distinct, rel=0.03, abs=1)
        assert one.top == other.top or len(other.top) == 50
        assert (one.mean, one.std) == pytest.approx((other.mean, other.std))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.csv.gz", "t.jsonl", "t.jsonl.gz", "t.orc"])
@pytest.mark.parametrize("on_repeat", ["quarantine", "first"])
def test_a_file_in_pieces_is_the_same_snapshot(place, monkeypatch, name, on_repeat) -> None:
    rows = table()
    text = rows.write_csv().encode() if ".csv" in name else rows.write_ndjson().encode()
    if name == "t.orc":
        orc.write_table(pa.table(rows.to_dict(as_series=False)), str(place.root / name))
    else:
        place.write(name, rows if name == "t.parquet" else gzip.compress(text) if name.endswith("gz") else text)
    declared = {
        "path": name,
        "key": "id",
        "event_time": "at",
        "rules": RULES,
        "quarantine": "20%",
        "on_repeat": on_repeat,
        "known_time": {"at": ["x"]},
    }
    whole, pieces, seen = both(place, monkeypatch, **declared)
    assert len(seen) > 5
    assert whole.rows_quarantined > 20
    same(place, whole, pieces)


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.csv.gz", "t.jsonl", "t.orc"])
def test_each_reading_of_a_large_file_says_how_much_of_it_is_read(place, monkeypatch, name) -> None:
    rows = table()
    text = rows.write_csv().encode() if ".csv" in name else rows.write_ndjson().encode()
    if name == "t.orc":
        orc.write_table(pa.table(rows.to_dict(as_series=False)), str(place.root / name))
    else:
        place.write(name, rows if name == "t.parquet" else gzip.compress(text) if name.endswith("gz") else text)
    in_pieces(monkeypatch)
    monkeypatch.setattr("cumulant.data.files.blocks._SAMPLE", 512)
    monkeypatch.setattr("cumulant.data.files.blocks._MB", 1)  # the file is as many bytes as others are megabytes
    told: list[tuple[str, float]] = []
    place.ingest(
        path=name,
        key="id",
        rules=RULES,
        quarantine="20%",
        on_repeat="first",
        progress=lambda text, share=None: told.append((text, share)),
    )
    readings = {"reading"} if name in ("t.parquet", "t.orc") else {"finding the types of", "reading"}
    size = f"{(place.root / name).stat().st_size:,} MB" if len(readings) == 2 else "900 rows"
    for reading in readings:
        said = [pair for pair in told if pair[0].startswith(f"trips: {reading} {name}, ")]
        assert said[-1] == (f"trips: {reading} {name}, {size.split(maxsplit=1)[0]} of {size}", 0.9)
        shares = [share for _, share in said]
        assert len(set(shares)) > (0 if name.endswith("gz") else 5)  # of which so little is unpacked at once
        assert shares == sorted(shares)
    shares = [share for _, share in told]
    assert 0 <= min(shares) <= max(shares) <= 1


def test_a_large_file_is_its_part_of_the_progress_of_all(place, monkeypatch) -> None:
    for name, rows in (("a.csv", 900), ("b.csv", 880)):
        place.write(name, table(rows).write_csv())
    in_pieces(monkeypatch)
    monkeypatch.setattr("cumulant.data.files.blocks._SAMPLE", 512)
    told: list[tuple[str, float]] = []
    place.ingest(path="*.csv", rules=RULES, quarantine="20%", progress=lambda text, share: told.append((text, share)))
    for name, end in (("a.csv", 0.45), ("b.csv", 0.9)):
        shares = [share for text, share in told if text.startswith(f"trips: reading {name}, ")]
        assert end - 0.45 < shares[0] < shares[-1] == pytest.approx(end)


@pytest.mark.parametrize("name", ["in/day=1/t.parquet", "in/day=1/t.orc"])
def test_columns_from_structs_are_those_of_the_whole_file(place, monkeypatch, name) -> None:
    rows = table().select("id", pl.struct("at", "x", pl.struct("n", "kind").alias("c")).alias("s"), t=pl.struct("part"))
    (place.root / name).parent.mkdir(parents=True)
    if name.endswith(".orc"):
        orc.write_table(pa.table(rows.to_dict(as_series=False)), str(place.root / name))
    else:
        place.write(name, rows)
    columns = {"n": "s.c.n", "kind": "s.c.kind", "at": "s.at", "part": "t.part", "none": "s.c.none", "no": "u.v"}
    declared = {"path": "in", "key": "id", "event_time": "at", "rules": RULES, "quarantine": "20%"}
    whole, pieces, seen = both(place, monkeypatch, **declared, columns=columns)
    assert len(seen) > 5
    assert whole.rows_quarantined > 20
    same(place, whole, pieces)


@pytest.mark.parametrize("path", ["s.x", "s.c", "id.x", "text.x"])
def test_columns_from_texts_or_without_a_value_are_taken_of_the_whole_file(place, monkeypatch, path) -> None:
    rows = table().select("id", s=pl.struct("x", pl.struct("n").alias("c")), text=pl.lit('{"x": 1}'))
    rows = rows.drop("s") if path == "text.x" else rows
    place.write("t.parquet", rows)
    seen = in_pieces(monkeypatch)
    if path in ("s.x", "text.x"):
        assert place.ingest(path="t.parquet", columns={"v": path}).rows_passed == 900
        assert (len(seen) > 1) == (path == "s.x")
        return
    with pytest.raises(DataError, match=r"the path of v (ends at a struct|leads through id)"):
        place.ingest(path="t.parquet", columns={"v": path})


def test_types_are_those_of_the_whole_text(place, monkeypatch) -> None:
    rows = table(400).with_columns(
        flag=pl.Series(["true"] * 200 + ["7"] * 200),
        late=pl.Series([str(number) for number in range(399)] + ["x9"]),
        code=pl.Series(["12"] * 300 + ["007"] * 100),
        big=pl.Series(["5"] * 399 + [str(2**70)]),
        wrong=pl.Series(["3"] * 398 + ["many", "4"]),
        none=pl.lit(None, pl.String),
    )
    place.write("t.csv", rows.write_csv())
    whole, pieces, seen = both(
        place, monkeypatch, path="t.csv", key="id", quarantine="20%", rules={"wrong": {"min": 0}}
    )
    assert len(seen) > 3
    types = {field.name: field.dtype for field in pieces.fields}
    assert (types["flag"], types["late"], types["code"], types["wrong"]) == ("str", "str", "str", "float")
    same(place, whole, pieces)


def test_malformed_rows_are_numbered_in_the_file(place, monkeypatch) -> None:
    lines = ["id,n,z", *(f"{number},1,2" for number in range(600))]
    lines[101], lines[402] = "100,1", "401,1,2,3"
    place.write("t.csv", "\n".join(lines) + "\n")
    whole, pieces, seen = both(place, monkeypatch, path="t.csv", key="id", quarantine="20%")
    assert len(seen) > 5
    same(place, whole, pieces)
    refused = place.tables.scan(pieces.quarantine).collect()
    assert refused["__row"].to_list() == [100, 401]
    assert refused["__line"].to_list() == [102, 403]


def test_blank_lines_count_as_lines(place, monkeypatch) -> None:
    place.write("t.csv", "id,n\n" + "1,2\n" * 100 + "\n" * 900 + "3,4\n5\n" + "6,7\n" * 100)
    whole, pieces, seen = both(place, monkeypatch, path="t.csv", quarantine="20%")
    assert len(seen) > 3
    assert place.tables.scan(pieces.quarantine).collect()["__line"].to_list() == [1003]
    same(place, whole, pieces)


def test_a_column_without_a_name_is_read_as_in_the_whole_file(place, monkeypatch) -> None:
    place.write("t.parquet", pl.DataFrame({"": range(200), "x": range(200)}))
    whole, pieces, _ = both(place, monkeypatch, path="t.parquet")
    same(place, whole, pieces)


@pytest.mark.slow
def test_prepare_sees_pieces_and_the_columns_of_folders_stay(place, monkeypatch) -> None:
    place.write("day=4/t.parquet", table(300))
    place.write(
        "prepare.py",
        "import polars as pl\ndef f(rows):\n    return rows.filter(pl.col('n') > 0).with_columns(m=pl.col('n') * 2)\n",
    )
    whole, pieces, seen = both(
        place, monkeypatch, path="*/t.parquet", key="id", prepare="prepare.py:f", quarantine="20%"
    )
    assert len(seen) > 3
    assert {"m", "day"} <= {field.name for field in pieces.fields}
    same(place, whole, pieces)


PREPARES = {
    "nulls first": "pl.Series([None if x < 100 else int(x) for x in rows['id'].to_list()])",
    "whole numbers first": "pl.Series([int(x) if x < 100 else x + 0.5 for x in rows['id'].to_list()], strict=False)",
    "other whole numbers": "rows['id'].cast(pl.Int32) if rows['id'].min() < 100 else rows['id']",
}


@pytest.mark.slow
@pytest.mark.parametrize("column", PREPARES)
def test_types_that_prepare_makes_of_pieces_are_those_of_the_file(place, monkeypatch, column) -> None:
    place.write("t.parquet", table(300).with_columns(id=pl.int_range(300)))
    place.write(
        "prepare.py", f"import polars as pl\ndef f(rows):\n    return rows.with_columns(made={PREPARES[column]})\n"
    )
    whole, pieces, _ = both(place, monkeypatch, path="t.parquet", key="id", prepare="prepare.py:f", quarantine="20%")
    same(place, whole, pieces)


@pytest.mark.parametrize("repeats", [False, True])
def test_refused_values_stay_as_they_came(place, monkeypatch, repeats) -> None:
    """Also where the value that cannot be read is in another piece."""
    lines = [f"{number},{'-' if number % 60 == 7 else ''}{number}.50,x" for number in range(500)]
    lines[3] = "3,bad,x"
    lines += ["499,1.50,x"] * repeats
    place.write("t.csv", "id,price,z\n" + "\n".join(lines) + "\n")
    whole, pieces, _ = both(place, monkeypatch, path="t.csv", key="id", rules={"price": {"min": 0}}, quarantine="20%")
    assert "-487.50" in place.tables.scan(pieces.quarantine).collect()["price"].to_list()
    same(place, whole, pieces)


@pytest.mark.parametrize(
    "row", [lambda n: f'{n if n < 400 else "x"},"{n % 7}"', lambda n: f'{n if n >= 100 else ""},"{n % 7}"']
)
def test_quotes_tell_of_identifiers_by_the_types_of_the_file(place, monkeypatch, row) -> None:
    place.write("t.csv", "ref,z\n" + "".join(f"{row(number)}\n" for number in range(500)))
    whole, pieces, _ = both(place, monkeypatch, path="t.csv", quarantine="20%")
    same(place, whole, pieces)


def test_blank_lines_of_one_column_are_rows(place, monkeypatch) -> None:
    place.write("t.csv", "x\n" + "1\n" * 100 + "\n" * 300 + "2\n" * 100)
    whole, pieces, _ = both(place, monkeypatch, path="t.csv")
    assert whole.rows_in == 500
    same(place, whole, pieces)


def test_a_header_after_a_blank_line_is_that_of_all_pieces(place, monkeypatch) -> None:
    place.write("t.csv", "\n" + table(400).write_csv())
    whole, pieces, _ = both(place, monkeypatch, path="t.csv", key="id", quarantine="20%")
    assert whole.rows_in == 400
    same(place, whole, pieces)


def test_zeros_have_the_signs_that_they_have_in_the_whole_file(place, monkeypatch) -> None:
    place.write("t.csv", "id,x\n" + "".join(f"{number},{'-0' if number < 200 else 1.5}\n" for number in range(400)))
    whole, pieces, seen = both(place, monkeypatch, path="t.csv", key="id")
    assert len(seen) > 3
    signs = [
        str(scan(one, tables).collect()["x"][0]) for one, tables in ((whole, place.stored), (pieces, place.tables))
    ]
    assert signs == ["-0.0", "-0.0"]


def test_numbers_that_merge_are_read_whole(place, monkeypatch) -> None:
    rows = table(300).with_columns(zip=pl.Series(["0123"] * 150 + ["123"] * 150))
    place.write("t.csv", rows.write_csv())
    whole, pieces, seen = both(
        place, monkeypatch, path="t.csv", key="id", rules={"zip": {"type": "int"}}, quarantine="90%"
    )
    assert not seen
    same(place, whole, pieces)


def test_repeats_by_partitions_are_those_of_all_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    values = pl.DataFrame(
        {
            "a": pl.Series(rng.choice([0.0, -0.0, 1.5, float("nan"), 2.0], 5000)),
            "b": pl.Series(rng.choice(["x", "y", None], 5000)),
            "known": pl.Series(rng.integers(0, 50, 5000)),
            "row": range(5000),
        }
    )
    frames = lambda: (values.slice(first, 700) for first in range(0, 5000, 700))  # noqa: E731
    for order, in_order in ((["row"], True), (["known", "row"], False)):
        at_once = find_repeats(
            frames, ["a", "b"], order, SourceSpec(), rows=5000, budget=MemoryBudget(1 << 40), in_order=in_order
        )
        parts = find_repeats(
            frames, ["a", "b"], order, SourceSpec(), rows=5_000_000, budget=MemoryBudget(0, tmp_path), in_order=in_order
        )
        assert at_once.height > 3000
        assert_frame_equal(parts, at_once)
    assert list(tmp_path.iterdir()) == []


def test_keys_of_several_files_repeat_whatever_the_memory(place, monkeypatch) -> None:
    for number in range(3):
        place.write(f"d/{number}.parquet", table(400).with_columns(pl.col("id") + number * 100))
    declared = {"path": "d", "key": "id", "quarantine": "90%"}
    monkeypatch.setattr(part_store, "FEWEST", 1 << 40)
    at_once, place.stored = place.ingest(**declared), place.tables
    monkeypatch.setattr(group_repeats, "_TIMES", 1_000_000)
    place.tables = type(place.tables)(f"file://{place.root / 'others'}")
    parts = place.ingest(**declared)
    assert at_once.rows_quarantined > 500
    same(place, at_once, parts)


def test_a_text_that_must_be_read_whole_says_what_to_set(place) -> None:
    place.write("t.jsonl", '{"id": 1}\n' * 3000)
    with pytest.raises(UsageError, match=r"t\.jsonl is read whole") as error:
        place.ingest(path="t.jsonl", budget=MemoryBudget(100_000))
    assert error.value.subject == "resources.memory"
    assert "set resources.memory to 1GiB" in str(error.value.hint)


CODE = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from cumulant.core.errors import DataError, UsageError
from cumulant.data.ingestion import ingest
from cumulant.data.parts.spill import MemoryBudget
from cumulant.data.spec import SourceSpec
from cumulant.drivers.local.files import LocalFiles
from cumulant.drivers.local.tables import FileTables
from cumulant.project.data_section import source_policy
root = Path(sys.argv[1])
spec = SourceSpec(path=sys.argv[2], key="id", rules={})
found = ingest("t", source_policy(spec), root=root, files=LocalFiles(root.as_uri()), tables=FileTables((root / "tables").as_uri()),
    previous=None, now=datetime(2024, 1, 1, tzinfo=UTC), budget=MemoryBudget(256 << 20, root / "spill"))
print(found.rows_passed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for rows in (1_000_000, 4_000_000):
        folder = tmp_path / str(rows)
        folder.mkdir()
        frame = pl.DataFrame({"id": np.arange(rows), "x": np.random.default_rng(1).normal(size=rows)})
        frame.write_parquet(folder / "t.parquet", row_group_size=131_072)
        done = subprocess.run(
            [sys.executable, "-c", CODE, folder, "t.parquet"],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ,
        )
        passed, peak = map(int, done.stdout.split())
        assert passed == rows
        peaks.append(peak)
    assert peaks[1] < 1.3 * peaks[0]
