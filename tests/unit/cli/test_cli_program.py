"""Printed commands run when they are copied: they name the program as it was called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cumulant.cli import errors, program
from cumulant.cli.output import Output
from cumulant.core.errors import NotFoundError


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The console script of an environment that is not on PATH, called from the folder above it."""
    found = tmp_path / ".venv" / "bin" / "cumulant"
    found.parent.mkdir(parents=True)
    for name in ("cumulant", "mlflow"):
        found.with_name(name).write_text("#!/bin/sh\n")
        found.with_name(name).chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(found), "demo"])
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    return found


def test_a_script_that_the_shell_does_not_find_is_named_by_its_path_from_here(script: Path) -> None:
    assert program.line("train --quick") == ".venv/bin/cumulant train --quick"
    assert program.program("mlflow") == ".venv/bin/mlflow"
    assert program.line("plan", project="my shop") == ".venv/bin/cumulant plan --project 'my shop'"


def test_a_script_elsewhere_is_named_by_its_whole_path(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "else where").mkdir()
    monkeypatch.chdir(tmp_path / "else where")
    assert program.line("train") == f"{script} train"
    monkeypatch.chdir(script.parent)
    assert program.line("train") == "./cumulant train"


def test_a_script_that_the_shell_finds_is_named_by_its_name(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(script.parent))
    assert program.line("train") == "cumulant train"
    assert program.line_in("shop", "train") == "cd shop && cumulant train"


def test_another_program_of_the_same_name_on_the_path_is_not_meant(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "cumulant"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(other.parent))
    assert program.line("train") == ".venv/bin/cumulant train"


def test_a_line_for_a_project_elsewhere_does_not_change_the_folder_under_the_script(script: Path) -> None:
    assert program.line_in("shop", "train") == ".venv/bin/cumulant train --project shop"


def test_without_a_script_the_plain_name_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/cumulant/cli/__main__.py"])
    assert program.line("train") == "cumulant train"
    monkeypatch.setattr(sys, "argv", [])
    assert program.line("train") == "cumulant train"


def test_only_commands_are_renamed_in_what_other_rooms_say(script: Path) -> None:
    said = program.as_called("write cumulant.yaml, then `cumulant train`; see cumulant --help, or pip install cumulant")
    assert said == (
        "write cumulant.yaml, then `.venv/bin/cumulant train`; see .venv/bin/cumulant --help, or pip install cumulant"
    )
    assert program.as_called("cumulant trains; /opt/cumulant train") == "cumulant trains; /opt/cumulant train"


def test_an_errors_hint_is_a_command_that_runs(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Output(json=False) as output:
        errors.finish(NotFoundError("nothing has run yet", hint="cumulant train"), output, debug=False)
    assert "next    .venv/bin/cumulant train" in capsys.readouterr().err


def test_the_installed_script_prints_its_own_path(tmp_path: Path) -> None:
    script = tmp_path / "env" / "cumulant"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom cumulant.cli import main\nmain()\n")
    script.chmod(0o755)
    made = subprocess.run(
        ["env/cumulant", "new", "shop"],
        cwd=tmp_path, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "next: env/cumulant train --project shop" in made.stdout
