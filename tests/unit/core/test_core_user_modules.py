"""Files of a project as modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cumulant.core.user_modules import import_file


def test_an_edit_of_the_same_size_within_the_same_second_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "own.py"
    for value in (1, 2):
        file.write_text(f"value = {value}\n")
        os.utime(file, (1_700_000_000, 1_700_000_000))
        assert import_file("cumulant_test_own", file).value == value


def test_a_file_that_fails_leaves_no_module(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        import_file("cumulant_test_failing", tmp_path / "own.py")
    assert "cumulant_test_failing" not in sys.modules
