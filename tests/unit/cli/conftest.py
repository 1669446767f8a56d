from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cumulant(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Runs a command line in this process, by the same door as the console script."""
    from cumulant.cli.app import run

    monkeypatch.delenv("CUMULANT_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*words: str) -> Ended:
        capfd.readouterr()
        code = run(words)
        found = capfd.readouterr()
        return Ended(code, found.out, found.err)

    return call


@pytest.fixture
def process() -> Callable[..., Ended]:
    """Runs a command line in a process of its own."""

    def call(*words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "cumulant.cli", *words],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            timeout=120,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return call


def write_visits(path: Path, rows: int = 400) -> None:
    """A small table with a learnable target: visits of a shop, and whether they ended in a purchase."""
    import random

    dice = random.Random(7)
    lines = ["visit,began,channel,pages,email,bought"]
    for number in range(rows):
        channel, pages = dice.choice(["mail", "search", "shop"]), dice.randint(1, 30)
        bought = dice.random() < (0.1 + 0.8 * (pages > 15) * (channel != "mail"))
        moment = f"2026-01-{1 + number * 28 // rows:02d}T{number % 24:02d}:15:00Z"
        lines.append(f"v{number:04d},{moment},{channel},{pages},person{number}@example.com,{'yes' if bought else 'no'}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def visits(tmp_path: Path) -> Path:
    write_visits(tmp_path / "visits.csv")
    return tmp_path / "visits.csv"


@pytest.fixture(scope="session")
def new_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the visits, and of a project that `cumulant new` has made of them."""
    folder = tmp_path_factory.mktemp("new")
    write_visits(folder / "visits.csv")
    create(folder)
    return folder


@pytest.fixture
def project(tmp_path: Path, new_project: Path) -> Path:
    """A new project on the visits."""
    shutil.copytree(new_project, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "shop" / "cumulant.yaml"
    path.write_text(path.read_text().replace(str(new_project), str(tmp_path)))
    return tmp_path / "shop"


def create(folder: Path) -> None:
    """`cumulant new`, with the visits in the folder."""
    from cumulant.cli.app import run

    words = ["--from", str(folder / "visits.csv"), "--target", "bought", "--time", "began", "--key", "visit"]
    assert run(["new", "shop", *words, "--project", str(folder)]) == 0


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one registered version, trained by `cumulant train --quick`."""
    from cumulant.cli.app import run

    folder = tmp_path_factory.mktemp("trained")
    write_visits(folder / "visits.csv", rows=600)
    create(folder)
    assert run(["train", "--quick", "--project", str(folder / "shop")]) == 0
    return folder / "shop"
