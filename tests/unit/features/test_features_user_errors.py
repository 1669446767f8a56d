"""Errors that a features file raises: in its own line, with a next step, without a path of this package."""

from __future__ import annotations

import pytest

from cumulant.core.errors import UserCodeError
from cumulant.features import load


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("x = rows.amout * 2", "'SourceRef' object has no attribute 'amout'", 'written col("amout")'),
        ("x = 1 / 0", "ZeroDivisionError: division by zero", "correct that line"),
        ("x = amont", "NameError: name 'amont' is not defined", 'did you mean "amount"?'),
        ("import nopackage.deep", "No module named 'nopackage'", "install nopackage"),
        ("from cumulant.features import nonsense", "cannot import name 'nonsense' from 'cumulant.features'", "correct"),
        ("from cumulant.features import sourc", "cannot import name 'sourc'", 'did you mean "source"?'),
    ],
)
def test_an_error_names_the_line_the_cause_and_the_next_step(tmp_path, line, message, hint):
    file = tmp_path / "features.py"
    file.write_text(
        f'from cumulant.features import col, source\nrows = source("rows")\namount = col("amount")\n{line}\n'
    )
    with pytest.raises(UserCodeError) as caught:
        load(file)
    error = caught.value
    assert error.message.startswith("features.py:4: the features file raised ")
    assert message in error.message
    assert hint in (error.hint or "")
    assert "site-packages" not in error.message
    assert "cumulant/features" not in error.message
