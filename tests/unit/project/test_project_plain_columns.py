"""`new` on columns that no feature can read as they are: it leaves them out or reads them as text, and says so."""

from __future__ import annotations

import json
import random

import pandas as pd
import polars as pl
import pytest

import cumulant
from cumulant.core.errors import DataError
from cumulant.project import create_from, create_from_frame, load

ROWS = 120
WIDE = 2**63


def table(**columns) -> pl.DataFrame:
    dice = random.Random(4)
    plain = {
        "pages": [dice.randint(1, 30) for _ in range(ROWS)],
        "channel": [dice.choice(["mail", "shop"]) for _ in range(ROWS)],
    }
    bought = [int(dice.random() < (0.8 if pages > 15 else 0.1)) for pages in plain["pages"]]
    return pl.DataFrame({**plain, **columns, "bought": bought})


NESTED = {
    "tags": [["a", "b"]] * ROWS,
    "place": [{"lat": 1.0, "name": "x"}] * ROWS,
}


def trained(folder) -> set[str]:
    """The inputs of a model that was trained on the project as it stands."""
    with cumulant.open(folder) as project:
        plan = project.plan().value
        project.train(trials=1, time="1s")
        return set(plan.features.names)


def test_lists_and_structs_are_left_out_and_the_project_trains(tmp_path):
    table(**NESTED).write_parquet(tmp_path / "visits.parquet")
    made = create_from(tmp_path / "visits.parquet", "bought", name="shop", directory=tmp_path)
    assert any("tags (List), place (Struct)" in note for note in made.assumptions)
    assert load(made.path).spec.data["rows"].prepare == "prepare.py:prepare"
    assert trained(made.path) == {"pages", "channel"}


def test_numbers_beyond_64_bits_are_text(tmp_path):
    few = pl.Series([WIDE + number % 3 for number in range(ROWS)], dtype=pl.UInt64)
    table(hash=few, small=pl.Series([number % 5 for number in range(ROWS)], dtype=pl.UInt64)).write_parquet(
        tmp_path / "visits.parquet"
    )
    made = create_from(tmp_path / "visits.parquet", "bought", name="shop", directory=tmp_path)
    assert any("read as text" in note and note.endswith(": hash") for note in made.assumptions)
    rules = load(made.path).spec.data["rows"].rules
    assert {name: rule.type for name, rule in rules.items()} == {"hash": "str"}
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
    from cumulant.data import to_polars

    mixed = pd.DataFrame({"fine": [1, 2], "code": [1, "one"]})
    with pytest.raises(DataError, match='column "code" holds int and str'):
        to_polars(mixed, source="the rows")
