"""Projects proposed from a folder: several files are read, and the columns that folders name become features."""

from datetime import UTC, datetime, timedelta

import polars as pl

from cumulant.ports.plugins import Drivers
from cumulant.project.file.loading import load
from cumulant.project.new.create import create_from
from cumulant.project.new.table_sample import read_sample


def orders(day: int, *, rows: int = 40) -> pl.DataFrame:
    start = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return pl.DataFrame(
        {
            "order_id": [f"o{day}_{row}" for row in range(rows)],
            "ordered": [start + timedelta(minutes=row) for row in range(rows)],
            "amount": [float((row * 7 + day) % 13) for row in range(rows)],
            "bought": [int((row * 5 + day) % 3 == 0) for row in range(rows)],
        }
    )


def written(folder, days: int):
    for day in range(days):
        place = folder / "orders" / f"region={'north' if day % 2 else 'south'}"
        place.mkdir(parents=True, exist_ok=True)
        orders(day).write_parquet(place / f"{day:03d}.parquet")
    return folder / "orders"


def test_columns_of_folders_are_features(tmp_path):
    created = create_from(written(tmp_path, 4), "bought", name="shop", directory=tmp_path)
    assert '"region"' in (created.path / "features.py").read_text()
    assert load(created.path).spec.model.name == "shop"


def test_notes_name_the_files_below_the_current_folder(tmp_path, monkeypatch):
    written(tmp_path, 4)
    monkeypatch.chdir(tmp_path)
    [note] = [note for note in create_from("orders", "bought", name="shop").assumptions if note.startswith("of 4")]
    expected = "orders/region=north/001.parquet to orders/region=south/002.parquet"
    assert note == f"of 4 files all were read, from {expected}"


def test_some_of_many_files_are_read_and_the_last_always_is(tmp_path, monkeypatch):
    folder = tmp_path / "orders"
    folder.mkdir()
    for day in range(50):
        orders(day, rows=2).write_parquet(folder / f"{day:03d}.parquet")
    monkeypatch.chdir(tmp_path)
    sample = read_sample("orders", Drivers.installed())
    assert sample.notes == ["of 50 files 20 were read, from orders/000.parquet to orders/049.parquet"]
    assert sample.rows.height == 40


def test_files_whose_columns_have_no_common_type(tmp_path, monkeypatch):
    folder = tmp_path / "orders"
    folder.mkdir()
    pl.DataFrame({"a": [[1]]}).write_parquet(folder / "1.parquet")
    pl.DataFrame({"a": [{"b": 1}]}).write_parquet(folder / "2.parquet")
    monkeypatch.chdir(tmp_path)
    sample = read_sample("orders", Drivers.installed())
    assert sample.rows.columns == ["a_b"]
    assert "of 2 files the last one was read: orders/2.parquet" in sample.notes
