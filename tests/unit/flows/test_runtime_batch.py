"""Answers for files piece by piece: what they are, what a second call goes on with, and what is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from batch_models import COLUMNS, neighbourly, several, trees

from cumulant.core.errors import DataError, LeaseHeldError, RequestError, StorageError, UsageError
from cumulant.flows.serving.batch.answer_parts import AnswerParts
from cumulant.flows.serving.batch.batch_model import load_folder
from cumulant.flows.serving.batch.flow import BatchRequest, predict_file
from cumulant.flows.serving.batch.parallel_engine import Lanes, find_best_size, part_rows
from cumulant.flows.serving.batch.prefetch import prefetch
from cumulant.servable.engine import Engine
from cumulant.serving.models.model import open_model

ROWS = 2500


@pytest.fixture(scope="module")
def forest(tmp_path_factory):
    return trees(tmp_path_factory.mktemp("forest") / "model")


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(3)
    return pl.DataFrame({"id": np.arange(ROWS)} | {name: random.normal(size=ROWS).astype("f4") for name in COLUMNS})


def answered(model, source, output, **options):
    keep = options.pop("keep", ["id"])
    said = options.pop("said", None)
    progress = (lambda text, share=None: said.append(text)) if said is not None else (lambda text, share=None: None)
    request = BatchRequest(input=str(source), output=output, **{"part_rows": 300, "threads": 2, **options})
    return predict_file(load_folder(model, keep), request, progress=progress)


def expected(model, rows):
    """Each row alone in the engine."""
    engine = Engine(model / "model.onnx")
    matrix = rows.select(COLUMNS).to_numpy().astype("f4")
    return np.concatenate([engine.run({"input": matrix[at : at + 1]})[0] for at in range(len(matrix))]).ravel()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("source", ["parquet", "csv", "jsonl"])
def test_every_row_is_answered_in_order_bit_for_bit(tmp_path, forest, rows, source, suffix):
    rows = rows.with_columns(pl.col(COLUMNS).cast(pl.Float64))
    given, out = tmp_path / f"in.{source}", tmp_path / f"out.{suffix}"
    {
        "parquet": lambda: rows.write_parquet(given, row_group_size=170),
        "csv": lambda: rows.write_csv(given),
        "jsonl": lambda: rows.write_ndjson(given),
    }[source]()
    found = answered(forest, given, out)
    read = {"parquet": pl.read_parquet, "csv": pl.read_csv, "jsonl": pl.read_ndjson}[suffix](out)
    assert read.columns == ["id", "output"]
    assert read["id"].to_list() == list(range(ROWS))
    assert read["output"].to_numpy().tobytes() == expected(forest, rows).tobytes()
    assert (found.rows, found.reused_rows) == (ROWS, 0)
    assert found.parts > 4
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({given.name, out.name})


def test_the_server_gives_the_same_answers(tmp_path, forest, rows):
    rows[:100].write_parquet(tmp_path / "in.parquet")
    answered(forest, tmp_path / "in.parquet", tmp_path / "out.parquet")
    model = open_model(forest)
    work = model.from_rows(rows[:100].select(COLUMNS).to_dicts())
    served = [answer["output"][0] for answer in model.answers(work, Engine(forest / "model.onnx").run(work.feeds))]
    model.close()
    assert pl.read_parquet(tmp_path / "out.parquet")["output"].to_list() == served


def test_files_of_a_folder_follow_each_other(tmp_path, forest, rows):
    (tmp_path / "in").mkdir()
    rows[:1000].write_parquet(tmp_path / "in" / "a.parquet")
    rows[1000:].write_parquet(tmp_path / "in" / "b.parquet")
    answered(forest, tmp_path / "in", tmp_path / "one.parquet")
    answered(forest, tmp_path / "in" / "*.parquet", tmp_path / "two.parquet")
    found = pl.read_parquet(tmp_path / "one.parquet")
    assert found["id"].to_list() == list(range(ROWS))
    assert found.equals(pl.read_parquet(tmp_path / "two.parquet"))


def cut(monkeypatch, after):
    """Let the writing of the part after so many fail, as on a full disk."""
    write = AnswerParts.write

    def failing(self, file, number, *frame):
        if number == after:
            monkeypatch.setattr(pq, "write_table", full)
        write(self, file, number, *frame)

    def full(*_args, **_settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(AnswerParts, "write", failing)


@pytest.mark.parametrize("source", ["parquet", "csv", "jsonl"])
def test_a_full_disk_keeps_the_parts_and_the_next_call_goes_on(tmp_path, forest, rows, source, monkeypatch):
    given, out = tmp_path / f"in.{source}", tmp_path / "out.parquet"
    {"parquet": rows.write_parquet, "csv": rows.write_csv, "jsonl": rows.write_ndjson}[source](given)
    answered(forest, given, tmp_path / "undisturbed.parquet")
    with monkeypatch.context() as patched:
        cut(patched, 3)
        with pytest.raises(StorageError, match="No space left on device") as caught:
            answered(forest, given, out)
    assert "parts are kept" in caught.value.hint
    assert not out.exists()
    assert len(list((tmp_path / "out.parquet.parts").glob("part-*.parquet"))) == 3
    said = []
    found = answered(forest, given, out, said=said, part_rows=None)
    assert found.reused_parts == 3
    assert 0 < found.reused_rows < found.rows == ROWS
    assert f"going on after 3 parts with {found.reused_rows:,} rows" in said
    assert out.read_bytes() == (tmp_path / "undisturbed.parquet").read_bytes()


@pytest.mark.parametrize("change", ["input", "model", "parts"])
def test_what_changed_starts_over_and_says_so(tmp_path, forest, rows, change, monkeypatch):
    given, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    rows.write_parquet(given)
    with monkeypatch.context() as patched:
        cut(patched, 2)
        with pytest.raises(StorageError):
            answered(forest, given, out)
    model, size, fresh = forest, 300, rows
    if change == "input":
        fresh = rows.with_columns(pl.col(COLUMNS) * 2)
        fresh.write_parquet(given)
    elif change == "model":
        model = trees(tmp_path / "other", count=10)
    else:
        size = 200
    said = []
    found = answered(model, given, out, said=said, part_rows=size)
    assert found.reused_parts == 0
    assert any(text.startswith(f"starting over: the {'size of ' * (change == 'parts')}{change}") for text in said), said
    assert pl.read_parquet(out)["output"].to_numpy().tobytes() == expected(model, fresh).tobytes()


def test_a_damaged_part_is_made_again(tmp_path, forest, rows, monkeypatch):
    given, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    rows.write_parquet(given)
    with monkeypatch.context() as patched:
        cut(patched, 4)
        with pytest.raises(StorageError):
            answered(forest, given, out)
    second = sorted((tmp_path / "out.parquet.parts").glob("part-*"))[1]
    second.write_bytes(second.read_bytes()[:50])
    assert answered(forest, given, out).reused_parts == 1
    assert pl.read_parquet(out)["output"].to_numpy().tobytes() == expected(forest, rows).tobytes()


def test_a_damaged_row_group_is_named_and_the_parts_before_it_are_kept(tmp_path, forest, rows):
    given, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    rows.write_parquet(given, row_group_size=500, compression="zstd")
    content = bytearray(given.read_bytes())
    place = pq.ParquetFile(given).metadata.row_group(3).column(2).dictionary_page_offset
    place = place or pq.ParquetFile(given).metadata.row_group(3).column(2).data_page_offset
    content[place : place + 60] = b"\xff" * 60
    given.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"in\.parquet: row group 3 \(rows 1,501 to 2,000\) is damaged"):
        answered(forest, given, out)
    assert not out.exists()
    assert len(list((tmp_path / "out.parquet.parts").glob("part-*.parquet"))) == 5


HOSTILE = {
    "a missing column": (lambda rows: rows.drop("f3"), "the rows lack f3"),
    "a misspelt column": (lambda rows: rows.rename({"f3": "f33"}), "the rows lack f3"),
    "text for numbers": (lambda rows: rows.with_columns(f1=pl.lit("many")), 'column "f1" must hold numbers'),
    "a list for a number": (lambda rows: rows.with_columns(f1=pl.lit([1.0])), 'column "f1" must hold numbers'),
    "a number that is too large": (
        lambda rows: rows.with_columns(f2=pl.when(pl.col("id") == 700).then(1e300).otherwise(0.0)),
        'row 701: "f2" is too large',
    ),
    "no kept column": (lambda rows: rows.drop("id"), "the rows lack id"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_rows_that_do_not_fit_are_refused(tmp_path, forest, rows, case):
    change, said = HOSTILE[case]
    change(rows).write_parquet(tmp_path / "in.parquet")
    with pytest.raises(RequestError, match=said):
        answered(forest, tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_files_that_are_none(tmp_path, forest, rows):
    (tmp_path / "in.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"is empty \(0 bytes\)"):
        answered(forest, tmp_path / "in.parquet", tmp_path / "out.parquet")
    (tmp_path / "in.parquet").write_bytes(b"PAR1" + b"x" * 100)
    with pytest.raises(DataError, match="not a whole Parquet file"):
        answered(forest, tmp_path / "in.parquet", tmp_path / "out.parquet")
    with pytest.raises(DataError, match="no file matches"):
        answered(forest, tmp_path / "other.parquet", tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


@pytest.mark.parametrize("source", ["parquet", "csv"])
def test_a_file_without_rows_gives_a_file_without_rows(tmp_path, forest, rows, source):
    given = tmp_path / f"in.{source}"
    {"parquet": rows[:0].write_parquet, "csv": rows[:0].write_csv}[source](given)
    assert answered(forest, given, tmp_path / "out.parquet").rows == 0
    found = pl.read_parquet(tmp_path / "out.parquet")
    assert (found.columns, found.height) == (["id", "output"], 0)


def test_several_inputs_come_from_columns_of_their_names(tmp_path):
    frame = pl.DataFrame(
        {"one": [1.5, 2.5, None], "many": [[1, 2, 3], [4, 5, 6], [7, 8, 9]], "word": ["a", "b", "c"], "other": 1}
    )
    frame.write_parquet(tmp_path / "in.parquet")
    said = []
    answered(several(tmp_path / "m"), tmp_path / "in.parquet", tmp_path / "out.parquet", keep=[], said=said)
    found = pl.read_parquet(tmp_path / "out.parquet")
    assert found["sum"].to_list()[:2] == [7.5, 17.5]
    assert np.isnan(found["sum"][2])
    assert found["double"].to_list() == [[2, 4, 6], [8, 10, 12], [14, 16, 18]]
    assert found["said"].to_list() == ["a", "b", "c"]
    assert "not read by the model, and so ignored: other" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"many": [[1, 2], [1, 2, 3]]}, 'column "many" must hold lists of 3 values, and does not in row 1'),
        ({"many": [[1, 2, 3], [1, None, 3]]}, 'row 2: "many" may not be missing'),
        ({"many": [[1, 2, 3], None]}, "does not in row 2"),
        ({"word": [1, 2]}, 'column "word" must hold texts'),
        ({"word": ["a", None]}, 'row 2: "word" may not be missing'),
        ({"many": [[0.5] * 3] * 2}, "must hold whole numbers"),
    ],
)
def test_several_inputs_that_do_not_fit(tmp_path, change, said):
    frame = pl.DataFrame({"one": [1.5, 2.5], "many": [[1, 2, 3]] * 2, "word": ["a", "b"]} | change, strict=False)
    frame.write_parquet(tmp_path / "in.parquet")
    with pytest.raises(RequestError, match=said):
        answered(several(tmp_path / "m"), tmp_path / "in.parquet", tmp_path / "out.parquet", keep=[])


@pytest.mark.parametrize("reason", ["the rows beside a row change it", "not tried"])
def test_rows_that_change_each_other_are_scored_alone(tmp_path, reason):
    pl.DataFrame({"x": [1.0, 2.0, 7.0]}).write_parquet(tmp_path / "in.parquet")
    model = neighbourly(tmp_path / "m", reason=reason)
    answered(model, tmp_path / "in.parquet", tmp_path / "out.parquet", keep=[])
    assert pl.read_parquet(tmp_path / "out.parquet")["y"].to_list() == [0.0, 0.0, 0.0]


def test_one_process_writes_an_output(tmp_path, forest, rows):
    rows.write_parquet(tmp_path / "in.parquet")
    with AnswerParts(tmp_path / "out.parquet"), pytest.raises(LeaseHeldError, match="another process writes"):
        answered(forest, tmp_path / "in.parquet", tmp_path / "out.parquet")


def test_the_output_may_not_be_read_as_input_nor_the_parts_be_strangers(tmp_path, forest, rows):
    (tmp_path / "in").mkdir()
    rows.write_parquet(tmp_path / "in" / "a.parquet")
    for source in (tmp_path / "in", tmp_path / "in" / "a.parquet"):
        with pytest.raises(UsageError, match="among the rows"):
            answered(forest, source, tmp_path / "in" / "a.parquet")
    (tmp_path / "out.parquet.parts").mkdir()
    (tmp_path / "out.parquet.parts" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds thesis\.txt"):
        answered(forest, tmp_path / "in", tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet.parts" / "thesis.txt").read_text() == "years of work"


def test_an_error_of_a_stage_is_raised_in_its_turn():
    def items():
        yield 1
        yield 2
        raise ValueError("three")

    seen = []
    with pytest.raises(ValueError, match="three"), prefetch(items()) as found:
        seen.extend(iter(found))
    assert seen == [1, 2]
    with prefetch(iter(range(10**9))) as found:
        assert [next(found), next(found)] == [0, 1]


def test_slices_cover_every_row_once():
    lanes = Lanes(2, 3)
    assert lanes.each(lambda rows: list(range(8))[rows], 8) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert lanes.each(lambda rows: list(range(8))[rows], 0) == [[]]
    lanes.close()
    assert part_rows(256, 1.0, 2) == 512
    assert part_rows(256, 1e9, 2) == 131_072
    size, speed = find_best_size(lambda rows: None, 64)
    assert size in (16, 64)
    assert speed > 0


def test_a_folder_that_is_no_servable(tmp_path):
    with pytest.raises(UsageError, match="holds no servable"):
        load_folder(Path(tmp_path), [])


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_value_that_the_model_cannot_do_without_is_missed_in_its_row(tmp_path, rows, value):
    model = trees(tmp_path / "model", required=("f2",))
    holed = pl.when(pl.col("id") == 700).then(pl.lit(value, pl.Float64))
    rows.with_columns(f1=holed.otherwise(0.0)).write_parquet(tmp_path / "in.parquet")
    assert answered(model, tmp_path / "in.parquet", tmp_path / "out.parquet").rows == ROWS
    rows.with_columns(f2=holed.otherwise(0.0)).write_parquet(tmp_path / "in.parquet")
    with pytest.raises(RequestError, match='row 701: "f2" may not be missing'):
        answered(model, tmp_path / "in.parquet", tmp_path / "out.parquet")
