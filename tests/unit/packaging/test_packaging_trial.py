"""Files that pass the checks of their text and crash the library: a child process tries to read them first."""

from __future__ import annotations

import re

import lightgbm
import numpy as np
import pytest

from cumulant.core.errors import DataError, MissingPartError
from cumulant.packaging.convert.boosters import read_booster
from cumulant.packaging.convert.trial_run import try_reading

#: a module `lightgbm` that imports what the text names, then is the installed library
_SHIM = """
import {needs}
import os, sys
sys.path.remove(os.path.dirname(__file__))
del sys.modules["lightgbm"]
import lightgbm
"""


@pytest.fixture
def crashing(tmp_path):
    """A file whose trees are said to be longer than the text."""
    rows = np.random.default_rng(1).normal(size=(200, 3))
    settings = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 2}
    text = lightgbm.train(settings, lightgbm.Dataset(rows, rows[:, 0] > 0), 2).model_to_string()
    path = tmp_path / "m.txt"
    path.write_text(re.sub(r"tree_sizes=[^\n]*", "tree_sizes=1 99999999", text, count=1))
    return path


def use_library(tmp_path, monkeypatch, needs):
    """Let a child process import a LightGBM that needs a package."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "lightgbm.py").write_text(_SHIM.format(needs=needs))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "library"), prepend=":")


def test_a_file_that_crashes_the_library_is_refused_by_name(crashing):
    with pytest.raises(DataError, match=rf"^lightgbm crashes when it reads {re.escape(str(crashing))}$"):
        read_booster(crashing)


@pytest.mark.slow
@pytest.mark.parametrize("needs", ["json", "pandas", "sklearn.base"])
def test_it_is_tried_whatever_the_library_imports(crashing, tmp_path, monkeypatch, needs):
    use_library(tmp_path, monkeypatch, needs)
    with pytest.raises(DataError, match="lightgbm crashes when it reads"):
        try_reading("lightgbm", crashing)


def test_a_file_that_could_not_be_tried_is_refused(crashing, tmp_path, monkeypatch):
    use_library(tmp_path, monkeypatch, "no_such_package")
    with pytest.raises(MissingPartError, match=r"cannot be imported to try .*m\.txt: .*no_such_package"):
        try_reading("lightgbm", crashing)


def test_modules_beside_the_file_are_not_imported(crashing, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("import pathlib; pathlib.Path('run').touch()")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="crashes"):
        try_reading("lightgbm", crashing)
    assert not (tmp_path / "run").exists()
