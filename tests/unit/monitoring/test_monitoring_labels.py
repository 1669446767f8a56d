"""Tables of all kinds, and the labels of a file beside the rows that they are about."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import DataError
from cumulant.monitoring.drift.blocks import RowBlocks
from cumulant.monitoring.drift.profiles import ProfileBlock
from cumulant.monitoring.table_labels import Labels, labelled
from cumulant.monitoring.tables import PredictionTable, _objects, open_table
from cumulant.outcomes.matching import resolve_labels


def joined(folder, rows, labels, **more):
    rows.write_parquet(folder / "rows.parquet")
    labels.write_parquet(folder / "labels.parquet")
    return labelled(open_table(folder / "rows.parquet"), folder / "labels.parquet", more.pop("label", "y"), **more)


ROWS = pl.DataFrame({"id": [1, 2, 3], "x": [1.0, 2.0, 3.0]})


def test_keys_that_are_one_in_the_type_of_the_rows_are_one_row(tmp_path):
    found = joined(tmp_path, ROWS, pl.DataFrame({"id": ["1", "01", "2"], "y": [1, 1, 0]}), label=None)
    assert (found.name, found.known, found.key) == ("y", 2, ("id",))
    assert found.table.series("y").to_list() == [1, 0, None]


def test_what_is_said_at_once_contradicts_and_what_became_known_later_corrects(tmp_path):
    labels = pl.DataFrame({"id": [1, 1, 2, 2, 9], "y": [0, 1, 1, 1, 0]})
    found = joined(tmp_path, ROWS, labels)
    assert found.table.series("y").to_list() == [None, 1, None]
    assert (found.known, found.contradicted.to_list(), found.unmatched) == (1, [True, False, False], 1)
    day = [datetime(2026, 1, place, tzinfo=UTC) for place in (1, 2, 2, 1, 1)]
    found = joined(tmp_path, ROWS, labels.with_columns(known_time=pl.Series(day)))
    assert found.table.series("y").to_list() == [1, 1, None]
    assert (found.contradicted.sum(), found.waiting) == (0, 0)
    found = joined(tmp_path, ROWS, labels.with_columns(known_time=pl.Series(day)), now=datetime(2026, 1, 1, tzinfo=UTC))
    assert (found.table.series("y").to_list(), found.waiting) == ([0, 1, None], 2)


def test_labels_of_no_row_are_refused(tmp_path):
    with pytest.raises(DataError, match="none of the 2 labels"):
        joined(tmp_path, ROWS, pl.DataFrame({"id": [7, 8], "y": [0, 1]}))


def test_labels_of_a_selection_are_not_compared(tmp_path):
    rows = pl.DataFrame({"id": range(100), "score": [place / 100 for place in range(100)]})
    labels = rows.filter(pl.col("score") > 0.7).select("id", y=pl.lit(1))
    whole = RowBlocks((ProfileBlock(0, 100),))
    found = joined(tmp_path, rows, labels).compared(whole)
    assert (found.known, found.refused, found.table.series("y").null_count()) == (29, 1, 100)
    drawn = labels.with_columns(weight=pl.lit(4.0))
    assert joined(tmp_path, rows, drawn).compared(whole).table.series("y").null_count() == 71
    chosen = labels.with_columns(weight=pl.when(pl.col("id") > 90).then(2.0).otherwise(9.0))
    assert joined(tmp_path, rows, chosen).compared(whole).table.series("y").null_count() == 100
    # Windows of their own: one of two has its labels.
    two = RowBlocks((ProfileBlock(0, 50), ProfileBlock(50, 50)), np.arange(100) // 50)
    half = joined(tmp_path, rows, rows.filter(pl.col("id") < 60).select("id", y=pl.lit(0))).compared(two)
    assert (half.refused, half.table.series("y").null_count()) == (1, 50)


def test_labels_of_which_those_of_one_class_come_late_are_not_compared(tmp_path):
    generator = np.random.default_rng(0)
    score = generator.beta(1, 9, 2000)
    rows = pl.DataFrame({"id": range(2000), "score": score, "y": (generator.random(2000) < score).astype(int)})
    cut = RowBlocks(tuple(ProfileBlock(first, 200) for first in range(0, 2000, 200)), np.arange(2000) // 200)
    early = rows.filter((pl.col("y") == 0) | (pl.col("id") < 400))
    found = joined(tmp_path, rows.drop("y"), early.select("id", "y")).compared(cut)
    assert (found.selected, found.refused) == (True, 8)
    assert found.table.series("y").null_count() == 1600  # the two windows before it have all labels, and count
    drawn = rows.sample(fraction=0.9, seed=1).select("id", "y")
    assert not joined(tmp_path, rows.drop("y"), drawn).compared(cut).selected
    named = rows.select("id", prediction=pl.when(pl.col("score") > 0.1).then(pl.lit("yes")).otherwise(pl.lit("no")))
    assert joined(tmp_path, named, early.select("id", "y")).compared(cut).selected


def test_contradictory_labels_of_one_class_are_no_moved_share(tmp_path):
    rows = pl.DataFrame({"id": range(100)})
    labels = rows.with_columns(y=pl.col("id") % 2)
    again = labels.head(20).with_columns(y=pl.lit(1, pl.Int64))
    found = joined(tmp_path, rows, pl.concat([labels, again])).compared(RowBlocks((ProfileBlock(0, 100),)))
    assert (found.known, found.refused, found.table.series("y").null_count()) == (90, 1, 100)
    few = joined(tmp_path, rows, pl.concat([labels, again.head(3)])).compared(RowBlocks((ProfileBlock(0, 100),)))
    assert (few.refused, few.table.series("y").null_count()) == (0, 2)


def test_requests_that_are_no_objects_have_no_fields():
    texts = pl.Series(['{"a": 1}', "[1, 2]", "3", None, ' {"a": 2}'])
    assert _objects(texts)["a"].to_list() == [1, None, None, None, 2]


def compared_days(generator, score, missing, days):
    """The labels of `days` windows of equal size after the comparison, of rows with `score` of which some are missing."""
    rows = pl.DataFrame({"score": score, "y": (generator.random(len(score)) < score).astype(float)})
    size = len(score) // days
    cut = RowBlocks(
        tuple(ProfileBlock(first, size) for first in range(0, len(score), size)), np.arange(len(score)) // size
    )
    rows = rows.with_columns(y=pl.when(pl.Series(missing)).then(None).otherwise(pl.col("y")))
    return Labels(PredictionTable("rows", rows.lazy(), ("score", "y"), None, ("score",)), "y", len(score), ()).compared(
        cut
    )


def test_few_missing_labels_refuse_no_window():
    generator = np.random.default_rng(0)
    score = generator.beta(2, 5, 60_000)
    missing = generator.random(60_000) < 0.01 * score / score.mean()
    labels = compared_days(generator, score, missing, 30)
    assert (labels.selected, labels.refused) == (False, 0)


def test_one_old_window_with_a_selection_refuses_that_window_only():
    generator = np.random.default_rng(0)
    score, day = generator.beta(2, 5, 30_000), np.arange(30_000) // 500
    missing = (day == 3) & (score > 0.5) | (generator.random(30_000) < 0.001)
    labels = compared_days(generator, score, missing, 60)
    assert (labels.selected, labels.refused) == (True, 1)


def test_lost_hours_and_unlabelled_accounts_are_no_selection():
    hours, accounts = 0, 0
    for seed in range(10):
        generator = np.random.default_rng(seed)
        hour, day = np.tile(np.arange(24).repeat(40), 20), np.arange(19_200) // 960
        score = np.clip(0.3 + 0.1 * np.sin(hour / 12 * np.pi) + generator.normal(0, 0.1, 19_200), 0.01, 0.99)
        hours += compared_days(generator, score, hour == generator.integers(0, 24, 20)[day], 20).selected
        account, level = generator.integers(0, 1000, 19_200), generator.beta(2, 5, 1000)
        score = np.clip(level[account] + generator.normal(0, 0.02, 19_200), 0.01, 0.99)
        accounts += compared_days(generator, score, (generator.random(1000) < 0.05)[account], 20).selected
    assert (hours, accounts) == (0, 0)


@pytest.mark.parametrize("days", [10, 30])
def test_one_class_that_is_late_in_some_windows_is_a_selection(days):
    for seed in range(5):
        generator = np.random.default_rng(seed)
        score, day = generator.beta(2, 5, 500 * days), np.arange(500 * days) // 500
        missing = (day >= 7) & (generator.random(500 * days) < 0.4 * score)
        labels = compared_days(generator, score, missing, days)
        assert (labels.selected, labels.refused) == (True, days - 7)


def test_one_class_that_is_late_in_the_newest_windows_is_a_selection_beside_labels_missing_at_random():
    for seed in range(5):
        generator = np.random.default_rng(seed)
        score, day = generator.beta(2, 5, 15_000), np.arange(15_000) // 500
        missing = (day >= 27) & (generator.random(15_000) < 0.4 * score) | (generator.random(15_000) < 0.05)
        assert compared_days(generator, score, missing, 30).selected


@pytest.mark.parametrize("keys", ["text", "number"])
def test_labels_of_many_rows_are_found_part_by_part(tmp_path, monkeypatch, keys):
    def key(numbers):
        return [f"r{number}" if keys == "text" else number for number in numbers]

    count = 400
    rows = pl.DataFrame({"id": key([*range(count), 5, 5]), "p": [0.5] * (count + 2)})
    told = [*range(0, 2 * count, 2), 4, 4, 8]
    moments = [datetime(2026, 1, 1 + number % 28, tzinfo=UTC) for number in range(len(told))]
    moments[7] = datetime(2190, 1, 1, tzinfo=UTC)
    said = {"id": key(told), "y": [number % 3 for number in range(len(told))], "known_time": moments}
    facts = pl.DataFrame(said | {"weight": [float(number % 4) for number in told]})
    whole = joined(tmp_path, rows, facts, key=["id"])
    heights = []

    def counted(pairs, by):
        heights.append(pairs.height)
        return resolve_labels(pairs, by)

    monkeypatch.setattr("cumulant.monitoring.table_labels._AT_ONCE", 40)
    monkeypatch.setattr("cumulant.monitoring.table_labels.resolve_labels", counted)
    parts = joined(tmp_path, rows, facts, key=["id"])
    assert max(heights) < len(told) / 4
    assert parts.table.rows.collect().equals(whole.table.rows.collect())
    assert parts.weight.equals(whole.weight)
    assert parts.contradicted.equals(whole.contradicted)
    assert (parts.known, parts.unmatched, parts.waiting) == (whole.known, whole.unmatched, whole.waiting)
    assert (whole.waiting, whole.unmatched) == (1, 200)
