"""Files of a project as modules."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from cumulant.core.system.user_modules import import_file, project_imports


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


def test_each_project_has_its_own_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("1", "77"):
        root = tmp_path / value
        (root / "cumulant_test_space" / "deeper").mkdir(parents=True)
        (root / "cumulant_test_helper.py").write_text(f"VALUE = {value}\n")
        (root / "cumulant_test_space" / "deeper" / "inner.py").write_text(f"VALUE = {value}\n")
        with monkeypatch.context() as patch, project_imports(root, {}):
            patch.syspath_prepend(str(root))
            for name in ("cumulant_test_helper", "cumulant_test_space.deeper.inner"):
                assert int(value) == importlib.import_module(name).VALUE
    assert not [name for name in sys.modules if name.startswith(("cumulant_test_helper", "cumulant_test_space"))]


def test_an_environment_inside_the_project_is_left_to_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its packages stay imported: nothing in them is the user's to edit, and some cannot be imported twice."""
    packages = tmp_path / ".venv" / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "cumulant_test_installed.py").write_text("")
    monkeypatch.syspath_prepend(str(packages))
    with project_imports(tmp_path, {}):
        installed = importlib.import_module("cumulant_test_installed")
    assert sys.modules.pop("cumulant_test_installed") is installed
