"""Printed commands begin with `cumulant`, and a group without a command shows its help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cumulant.cli import program
from cumulant.cli.app import COMMANDS, load
from cumulant.cli.invocation import Invocation
from cumulant.cli.output import CommandOutput


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


def test_lines_name_cumulant_whatever_path_it_was_called_by(script: Path) -> None:
    assert program.line("train --quick") == "cumulant train --quick"
    assert program.line("plan", project="my shop") == "cumulant plan --project 'my shop'"
    assert program.line_in("my shop", "train") == "cd 'my shop' && cumulant train"


def test_another_program_of_the_environment_is_named_so_that_it_is_found(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program.program("mlflow") == ".venv/bin/mlflow"
    monkeypatch.chdir(script.parent)
    assert program.program("mlflow") == "./mlflow"
    monkeypatch.setenv("PATH", str(script.parent))
    assert program.program("mlflow") == "mlflow"
    monkeypatch.setattr(sys, "argv", [])
    assert program.program("mlflow") == "mlflow"


def test_the_installed_script_prints_cumulant_and_no_path(tmp_path: Path) -> None:
    script = tmp_path / "env" / "cumulant"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom cumulant.cli import main\nmain()\n")
    script.chmod(0o755)
    made = subprocess.run(
        ["env/cumulant", "new", "shop"],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "next: cd shop && cumulant train" in made.stdout


@pytest.mark.parametrize("name", [name for name in COMMANDS if hasattr(load(name), "commands")])
def test_a_group_without_a_command_prints_its_help(cumulant, name: str) -> None:
    ended = cumulant(name)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err == cumulant(name, "--help").out


def test_options_of_every_command_alone_print_the_help_of_the_group_too(cumulant) -> None:
    assert cumulant("runs", "--project", ".", "--env=prod").err == cumulant("runs", "--help").out
    error = cumulant("runs", "--json").document["error"]
    assert (error["exit_code"], error["subject"]) == (2, "cumulant runs")
    assert error["hint"].startswith("list, show; ")


def test_a_command_that_does_not_exist_is_an_error(cumulant) -> None:
    ended = cumulant("runs", "lst")
    assert ended.code == 2
    assert 'did you mean "list"?' in ended.err


@pytest.mark.parametrize(
    ("directory", "environment", "options"),
    [
        (None, "local", ""),
        (None, "prod", " --env prod"),
        ("my shop", "prod", " --project 'my shop' --env prod"),
    ],
)
def test_the_next_command_is_of_the_same_project_and_environment(directory, environment, options):
    call = Invocation(directory=directory, environment=environment, action=None, output=CommandOutput(json=False))
    assert call.line("train") == f"cumulant train{options}"
