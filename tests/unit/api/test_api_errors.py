"""Errors in a notebook: the hint stands with them, and no frame of this package does."""

from __future__ import annotations

import shutil
import traceback

import pytest

import cumulant
from cumulant.core.errors import CumulantError, NotFoundError, UserCodeError
from cumulant.core.system.user_code import is_internal


def frames(error: BaseException) -> list[str]:
    return [one.filename for one in traceback.extract_tb(error.__traceback__)]


def internal(error: BaseException) -> list[str]:
    """Frames of this package, but for the one that raises what a notebook sees."""
    return [file for file in frames(error) if is_internal(file) and not file.endswith("api/errors.py")]


def test_an_error_has_its_hint_and_no_internal_frame(tmp_path):
    with pytest.raises(CumulantError) as caught:
        cumulant.open(tmp_path)
    shown = "".join(traceback.format_exception(caught.value))
    assert "next: start a project: cumulant new" in shown
    assert internal(caught.value) == []
    assert "During handling" not in shown
    assert len(shown.splitlines()) < 15


def test_an_error_of_the_users_file_shows_the_users_line(project, tmp_path):
    folder = tmp_path / "shop"
    shutil.copytree(project.root, folder, ignore=shutil.ignore_patterns(".cumulant"))
    with (folder / "features.py").open("a") as file:
        file.write("\nhalf = 1 / 0\n")
    with cumulant.open(folder) as own, pytest.raises(UserCodeError) as caught:
        own.plan()
    shown = "".join(traceback.format_exception(caught.value))
    assert "half = 1 / 0" in shown
    assert internal(caught.value) == []
    assert internal(caught.value.__cause__) == []
    assert "next: correct that line" in shown


def test_everything_is_shown_when_asked_for(project, monkeypatch):
    monkeypatch.setenv("CUMULANT_DEBUG", "1")
    with pytest.raises(NotFoundError) as caught:
        project.preview("nothing")
    assert internal(caught.value)
