"""`new` on columns that no feature can read as they are: it leaves them out or reads them as text, and says so."""

from __future__ import annotations

import json
import random

import pandas as pd
import polars as pl
import pytest

import cumulant
from cumulant.core.errors import DataError
from cumulant.flows.serving.predict import predict
from cumulant.project.file.loading import load
from cumulant.project.new.create import create_from, create_from_frame

pytestmark = pytest.mark.slow

ROWS = 120
WIDE = 2**63


def table(**columns) -> pl.DataFrame:
    dice = random.Random(4)
    plain = {
        "pages": [dice.randint(1, 30) for _ in range(ROWS)],
        "channel": [dice.choice(["mail", "shop"]) for _ in range(ROWS)],
    }
    bought = [int(dice.random() < (0.8 if pages > 15 else 0.1)) for pages in plain["pages"]]  # type: ignore[attr-defined]
    return pl.DataFrame({**plain, **columns, "bought": bought})


NESTED = {
    "tags": [["a", "b"]] * ROWS,
    "place": [{"lat": number % 7 / 2, "at": {"name": "xyz"[number % 3]}, "ids": [1]} for number in range(ROWS)],
}


def trained(folder) -> set[str]:
    """The inputs of a model that was trained on the project as it stands."""
    with cumulant.open(folder) as project:
        plan = project.plan().value
        project.train(trials=1, time="1s")
        return set(plan.features.names)


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "frame"])
def test_fields_of_structs_are_columns_lists_are_left_out_and_the_project_trains(tmp_path, kind):
    rows = table(**NESTED)
    if kind == "frame":
        made = create_from_frame(rows, "bought", name="shop", directory=tmp_path)
    else:
        file = tmp_path / f"visits.{kind}"
        rows.write_parquet(file) if kind == "parquet" else rows.write_ndjson(file)
        made = create_from(file, "bought", name="shop", directory=tmp_path)
    assert "fields of structs are columns: place_lat (place.lat), place_at_name (place.at.name)" in made.assumptions
    assert any("place.ids: lists" in note for note in made.assumptions)
    assert any("tags (List)" in note for note in made.assumptions)
    source = load(made.path).spec.data["rows"]
    assert source.columns == {"place_lat": "place.lat", "place_at_name": "place.at.name"}
    assert source.prepare == "prepare.py:prepare"
    assert trained(made.path) == {"pages", "channel", "place_lat", "place_at_name"}


def test_a_field_that_also_holds_objects_is_no_column(tmp_path):
    rows = table(place=[{"lat": number / 3} for number in range(ROWS)]).to_dicts()
    lines = [
        row | {"place": row["place"] | {"name": "x" if number % 9 else {"de": "x"}}} for number, row in enumerate(rows)
    ]
    (tmp_path / "visits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = create_from(tmp_path / "visits.jsonl", "bought", name="shop", directory=tmp_path)
    assert load(made.path).spec.data["rows"].columns == {"place_lat": "place.lat"}
    assert any("place.name: rows have lists or objects" in note for note in made.assumptions)


def test_rows_that_will_be_refused_are_counted_in_a_warning(tmp_path):
    lines = table(place=[{"name": f"x{number % 5}"} for number in range(ROWS)]).to_dicts() * 3
    lines[7] = lines[7] | {"place": {"name": {"de": "x"}}}
    (tmp_path / "visits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = create_from(tmp_path / "visits.jsonl", "bought", name="shop", directory=tmp_path)
    assert "warning: 1 row goes to quarantine, by the rules place_name:path (1)" in made.assumptions


def test_a_sheet_of_a_workbook_with_several(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "Read me"
    sheet = book.create_sheet("All visits")
    rows = table()
    for row in [tuple(rows.columns), *rows.rows()]:
        sheet.append(row)
    book.save(tmp_path / "visits.xlsx")
    with pytest.raises(DataError, match="has 2 sheets") as raised:
        create_from(tmp_path / "visits.xlsx", "bought", name="shop", directory=tmp_path)
    assert "`--sheet 'Read me'` of the command" in str(raised.value.hint)
    made = create_from(tmp_path / "visits.xlsx", "bought", name="shop", directory=tmp_path, sheet="All visits")
    assert load(made.path).spec.data["rows"].sheet == "All visits"


def test_rows_to_predict_are_read_by_the_declared_paths(tmp_path):
    rows = table(place=[{"lat": number % 7 / 2} for number in range(ROWS)])
    rows.write_ndjson(tmp_path / "visits.jsonl")
    made = create_from(tmp_path / "visits.jsonl", "bought", name="shop", directory=tmp_path)
    flat = rows.with_columns(pl.col("place").struct.field("lat").alias("place_lat")).drop("place")
    with cumulant.open(made.path) as project:
        project.train(trials=1, time="1s")
        loaded = project.loaded
        answers = predict(loaded, project.name, tmp_path / "visits.jsonl", principal=loaded.principal())
        assert answers.equals(project.predict(flat))


def test_numbers_beyond_64_bits_are_text(tmp_path):
    few = pl.Series([WIDE + number % 3 for number in range(ROWS)], dtype=pl.UInt64)
    table(hash=few, small=pl.Series([number % 5 for number in range(ROWS)], dtype=pl.UInt64)).write_parquet(
        tmp_path / "visits.parquet"
    )
    made = create_from(tmp_path / "visits.parquet", "bought", name="shop", directory=tmp_path)
    assert any("read as text" in note and note.endswith(": hash") for note in made.assumptions)
    rules = load(made.path).spec.data["rows"].rules
    assert {name: rule.type for name, rule in rules.items()} == {"hash": "str", "bought": "int"}
    with cumulant.open(made.path) as project:
        project.validate()
        found = project.preview("rows", rows=1)
    assert found["hash"].to_list() == [str(WIDE)], "no digit is lost"


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_wide_numbers_and_lists_of_text_files(tmp_path, ending):
    wide = [str(WIDE + number % 3) for number in range(ROWS)]
    file = tmp_path / f"visits.{ending}"
    if ending == "csv":
        table(hash=wide).write_csv(file)
    else:
        rows = [row | {"hash": int(row["hash"]), "tags": [1, 2]} for row in table(hash=wide).to_dicts()]
        file.write_text("\n".join(json.dumps(row) for row in rows))
    made = create_from(file, "bought", name="shop", directory=tmp_path)
    with cumulant.open(made.path) as project:
        assert set(project.plan().value.features.names) == {"pages", "channel", "hash"}


def test_mixed_types_of_pandas_are_text_and_the_project_trains(tmp_path):
    frame = table().to_pandas()
    frame["code"] = [number % 3 if number % 2 else "none" for number in range(ROWS)]
    frame["large"] = [2**70 + number % 2 for number in range(ROWS)]
    made = create_from_frame(frame, "bought", name="shop", directory=tmp_path)
    assert any("read as text: code (int and str), large" in note for note in made.assumptions)
    assert trained(made.path) == {"pages", "channel", "code", "large"}


def test_python_objects_are_left_out(tmp_path):
    frame = table().with_columns(pl.Series("thing", [object()] * ROWS, dtype=pl.Object))
    made = create_from_frame(frame, "bought", name="shop", directory=tmp_path)
    assert "left out: thing (Python objects)" in made.assumptions


def test_an_error_names_the_column(tmp_path):
    frame = table().to_pandas().rename(columns={"pages": "channel"})
    with pytest.raises(DataError, match='column "channel" holds a name that several columns have') as caught:
        create_from_frame(frame, "bought", name="shop", directory=tmp_path)
    assert caught.value.subject == "channel"
    from cumulant.data.files.user_frames import to_polars

    mixed = pd.DataFrame({"fine": [1, 2], "code": [1, "one"]})
    with pytest.raises(DataError, match='column "code" holds int and str'):
        to_polars(mixed, source="the rows")
