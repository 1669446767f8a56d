"""Errors that a features file raises: in its own line, with a next step, without a path of this package."""

from __future__ import annotations

import pytest

from cumulant import features
from cumulant.core.errors import DefinitionError, UserCodeError
from cumulant.features.definition.loading import FUNCTIONS, load


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("x = rows.amout * 2", "'SourceRef' object has no attribute 'amout'", 'written col("amout")'),
        ("x = 1 / 0", "ZeroDivisionError: division by zero", "correct that line"),
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


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("x = amont", 'did you mean "amount"?'),
        ("x = lit(2)", "add `from cumulant.features import lit`"),
        ("x = when(amount > 2)", "add `from cumulant.features import when`"),
    ],
)
def test_a_name_that_is_not_defined_is_an_error_of_the_definition(tmp_path, line, hint):
    file = tmp_path / "features.py"
    file.write_text(f'from cumulant.features import col\namount = col("amount")\n{line}\n')
    with pytest.raises(DefinitionError, match=r"features\.py:3: the features file raised NameError") as caught:
        load(file)
    assert hint in (caught.value.hint or "")
    assert isinstance(caught.value.__cause__, NameError)


def test_each_function_for_a_features_file_can_be_imported():
    assert all(callable(getattr(features, name)) for name in FUNCTIONS)
