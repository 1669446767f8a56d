"""Files that cannot be read among files that can."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable

import openpyxl
import polars as pl
import pytest
from pyarrow import orc
from test_data_large_files import in_pieces

from cumulant.core.errors import DataError, UsageError
from cumulant.data.checks.verdict import SourceBreachError, warnings_of
from cumulant.data.events import facts_of
from cumulant.data.parts.spill import MemoryBudget


def table(number: int) -> pl.DataFrame:
    ids = list(range(100 * number, 100 * number + 100))
    return pl.DataFrame({"id": ids, "v": [float(value) for value in ids]})


def csv(frame: pl.DataFrame) -> bytes:
    return frame.write_csv().encode()


def packed(frame: pl.DataFrame) -> bytes:
    return gzip.compress(csv(frame))


def lines(frame: pl.DataFrame) -> bytes:
    return frame.write_ndjson().encode()


def parquet(frame: pl.DataFrame) -> bytes:
    stream = io.BytesIO()
    frame.write_parquet(stream)
    return stream.getvalue()


def stripes(frame: pl.DataFrame) -> bytes:
    stream = io.BytesIO()
    orc.write_table(frame.to_arrow(), stream)
    return stream.getvalue()


def sheet(frame: pl.DataFrame) -> bytes:
    book, stream = openpyxl.Workbook(), io.BytesIO()
    for row in [tuple(frame.columns), *frame.rows()]:
        book.active.append(row)
    book.save(stream)
    return stream.getvalue()


def wrong_checksum(content: bytes) -> bytes:
    return content[:-6] + bytes([content[-6] ^ 0xFF]) + content[-5:]


CASES: dict[str, tuple[str, Callable[[pl.DataFrame], bytes], bytes, str]] = {
    "garbage": (".csv", csv, bytes(range(128, 256)) * 30, "is not text in the declared encoding"),
    "lines of garbage": (".csv", csv, bytes([*range(128, 256), 10]) * 30, "is not"),
    "zeros": (".csv", csv, bytes(4096), "is not CSV"),
    "empty": (".csv", csv, b"", "is empty (0 bytes)"),
    "quote": (".csv", csv, b'id,v\n1,"x\n2,3\n', "has a quoted field that does not end"),
    "checksum": (".csv.gz", packed, wrong_checksum(packed(table(5))), "is damaged or cut off (gzip)"),
    "cut Parquet": (".parquet", parquet, parquet(table(5))[:-200], "is not a whole Parquet file"),
    "cut ORC": (".orc", stripes, stripes(table(5))[:-100], "is not a whole ORC file"),
    "no workbook": (".xlsx", sheet, b"hello", "is not a whole Excel workbook"),
    "JSON garbage": (".jsonl", lines, bytes(range(256)) * 20, "is not UTF-8 text"),
    "cut JSON": (".jsonl", lines, lines(table(5))[:-10], "is cut off: its last line is not a whole JSON object"),
}
WARN = {"unreadable_files": "warn"}


def write(place, case: str, count: int = 10, bad: tuple[int, ...] = (3, 7)) -> None:
    suffix, make, content, _ = CASES[case]
    for number in range(count):
        place.write(f"in/{number:02}{suffix}", content if number in bad else make(table(number)))


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 20])  # of 16 and more small files packs are made
@pytest.mark.parametrize("case", CASES)
def test_files_that_cannot_be_read_are_all_named_and_refuse_the_snapshot(place, case, count) -> None:
    write(place, case, count)
    with pytest.raises(SourceBreachError) as caught:
        place.ingest(path="in", key="id")
    found, (suffix, _, _, reason) = caught.value.snapshot, CASES[case]
    assert [file.url for file in found.unreadable] == [f"in/03{suffix}", f"in/07{suffix}"]
    for file in found.unreadable:
        assert file.reason in str(caught.value)
        assert file.reason.startswith(f"{file.url} {reason}")
    assert "severity: {unreadable_files: warn}" in caught.value.hint
    assert (found.rows_passed, len(found.files)) == (100 * (count - 2), count - 2)
    assert [entry["url"] for entry in caught.value.as_dict()["unreadable"]] == [f"in/03{suffix}", f"in/07{suffix}"]  # type: ignore[attr-defined]


def test_one_word_for_all_rules_does_not_accept_the_loss_of_whole_files(place) -> None:
    write(place, "empty", 4, bad=(1,))
    found = place.refused(path="in", key="id", severity="warn")
    assert found.breaches == ("not so: each of the 4 files can be read; 1 cannot: in/01.csv is empty (0 bytes)",)


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 20])
@pytest.mark.parametrize("case", CASES)
def test_a_source_goes_on_without_them_where_that_only_warns(place, case, count) -> None:
    write(place, case, count)
    found = place.ingest(path="in", key="id", severity=WARN)
    assert found.rows_passed == 100 * (count - 2)
    (warning,) = warnings_of(found)
    assert warning.startswith(f"not so: each of the {count} files can be read; 2 cannot: in/03")
    assert facts_of(found)[-1].warnings == (warning,)  # type: ignore[attr-defined]
    good = [number for number in range(count) if number not in (3, 7)]
    assert place.rows(found, "id") == [(row,) for number in good for row in table(number)["id"]]


@pytest.mark.parametrize("count", [10, 20])
def test_they_are_read_once_they_can_be_and_not_tried_before(place, count, monkeypatch) -> None:
    write(place, "cut JSON", count)
    first = place.ingest(path="in", key="id", severity=WARN)
    place.files.opened.clear()
    again = place.ingest(path="in", key="id", severity=WARN, previous=first)
    assert (again.id, again.unreadable, place.files.opened) == (first.id, first.unreadable, [])
    place.ingest(path="in", key="id", severity=WARN, previous=first, force=True)
    assert place.files.opened.count("03.jsonl") > 1  # its content is compared, and it is tried
    place.files.opened.clear()
    place.write("in/03.jsonl", lines(table(3)))
    mended = place.ingest(path="in", key="id", severity=WARN, previous=again)
    assert [file.url for file in mended.unreadable] == ["in/07.jsonl"]
    assert set(place.files.opened) == {"03.jsonl"}
    assert (mended.rows_passed, len(mended.files)) == (100 * (count - 1), count - 1)
    assert mended.id != first.id


@pytest.mark.slow
def test_a_file_beyond_its_memory_is_tried_again_with_more(place) -> None:
    wide = "".join(f'{{"id": {number + 2}, "k{number % 900}": 1}}\n' for number in range(3000))
    place.write("in/1.jsonl", '{"id": 1}\n')
    place.write("in/2.jsonl", wide)
    first = place.ingest(path="in", severity=WARN, memory="20MiB")
    assert [file.url for file in first.unreadable] == ["in/2.jsonl"]
    assert place.ingest(path="in", severity=WARN, memory="64GiB", previous=first).unreadable == ()


def test_a_file_that_was_read_before_counts_as_lost(place) -> None:
    write(place, "cut Parquet", bad=())
    first = place.ingest(path="in", key="id", severity=WARN)
    place.write("in/03.parquet", CASES["cut Parquet"][2])
    found = place.refused(path="in", key="id", severity=WARN, previous=first)
    assert "1 file of the last snapshot is no longer readable (100 rows): in/03.parquet" in found.warnings
    assert any("at most 0.01 of the rows are lost" in text for text in found.breaches)


def test_where_no_file_can_be_read_there_is_no_snapshot(place) -> None:
    write(place, "cut Parquet", 3, bad=(0, 1, 2))
    with pytest.raises(DataError, match=r"none of its 3 files can be read: in/00\.parquet is not .*; in/02\.parquet"):
        place.ingest(path="in", severity=WARN)
    write(place, "cut Parquet", 1, bad=(0,))
    with pytest.raises(DataError, match=r"^in/00\.parquet is not a whole Parquet file"):
        place.ingest(path="in/00.parquet", severity=WARN)


def test_a_file_in_pieces_that_ends_early_is_set_aside(place, monkeypatch) -> None:
    in_pieces(monkeypatch)
    frames = {"1": table(1), "2": table(2), "3": table(3)}
    for name, frame in frames.items():
        content = parquet(pl.concat([frame] * 10))
        place.write(f"in/{name}.parquet", content[:2000] + b"\xff" * 50 + content[2050:] if name == "2" else content)
    found = place.ingest(path="in", severity=WARN)
    assert [file.url for file in found.unreadable] == ["in/2.parquet"]
    assert found.rows_passed == 2000


def test_a_file_without_permission_is_named_with_the_others(place) -> None:
    write(place, "empty", 4, bad=(1,))
    place.write("in/02.csv", csv(table(2))).chmod(0)
    try:
        found = place.ingest(path="in", severity=WARN)
    finally:
        (place.root / "in/02.csv").chmod(0o600)
    if len(found.unreadable) == 1:
        pytest.skip("root reads every file")
    assert [file.reason for file in found.unreadable] == [
        "in/01.csv is empty (0 bytes)",
        "in/02.csv: Permission denied",
    ]
    assert place.ingest(path="in", severity=WARN, previous=found).rows_passed == 300


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.xlsx", sheet(table(1))), ("t.csv.gz", gzip.compress(b"\n" + csv(pl.concat([table(1)] * 400))))],
)
def test_a_file_that_is_read_whole_and_takes_too_much_memory_is_refused_before(
    place, monkeypatch, name, content
) -> None:
    monkeypatch.setattr("cumulant.data.files.listed_file.read_table", None)  # is not come to
    monkeypatch.setattr("cumulant.data.files.large_files.LARGE_TEXT", 1)
    place.write(name, content)
    with pytest.raises(UsageError, match=rf"{name} is read whole, .* more than resources\.memory allows") as caught:
        place.ingest(path=name, budget=MemoryBudget(30_000))
    assert "set resources.memory to 1GiB or more" in caught.value.hint
