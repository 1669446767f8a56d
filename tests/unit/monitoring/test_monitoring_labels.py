"""Tables of all kinds, and the labels of a file beside the rows that they are about."""

import polars as pl

from cumulant.monitoring.labels import labelled
from cumulant.monitoring.tables import _objects, open_table


def test_keys_that_are_one_in_the_type_of_the_rows_are_one_label(tmp_path):
    pl.DataFrame({"id": [1, 2, 3], "x": [1.0, 2.0, 3.0]}).write_parquet(tmp_path / "rows.parquet")
    pl.DataFrame({"id": ["1", "01", "2"], "y": [0, 1, 0]}).write_parquet(tmp_path / "labels.parquet")
    table, name, known, key = labelled(open_table(tmp_path / "rows.parquet"), tmp_path / "labels.parquet", None)
    assert (name, known, key, table.series("y").to_list()) == ("y", 2, ("id",), [1, 0, None])


def test_requests_that_are_no_objects_have_no_fields():
    texts = pl.Series(['{"a": 1}', "[1, 2]", "3", None, ' {"a": 2}'])
    assert _objects(texts)["a"].to_list() == [1, None, None, None, 2]
