"""Rows that a caller sends as objects: a table, or refused with the reason."""

import pytest

from cumulant.core.errors import DataError
from cumulant.data.files.user_frames import frame_of_rows


@pytest.mark.parametrize(
    "rows",
    [
        [{"a": {}}, {"a": [True]}],
        [{"a": [1.5, "x"]}],
        [{"a": {"b": 1}}, {"a": [{}]}],
        [{"\ud800": 1}],
    ],
)
def test_rows_that_no_table_can_hold_are_refused(rows):
    with pytest.raises(DataError, match="the rows are no table"):
        frame_of_rows(rows)


def test_rows_with_other_columns_each_are_a_table():
    assert frame_of_rows([{"a": 1}, {"b": "x"}]).to_dicts() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]
