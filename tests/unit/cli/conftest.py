from __future__ import annotations

import json
import os
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
            capture_output=True, text=True, cwd=cwd, env={**os.environ, **(env or {})}, timeout=120, check=False,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    return call
