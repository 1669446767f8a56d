"""A server that answers who its caller is, behind the real sign-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sign_in_support import Server

from cumulant.project.file.loading import load


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A server of projects of these names, whose local environment has this `sign_in`."""
    with ExitStack() as stack:

        def start(*names: str, sign_in: str = "", **options: Any) -> Server:
            projects = {}
            for name in names or ("shop",):
                folder = tmp_path / name
                folder.mkdir(exist_ok=True)
                section = f"environments:\n  local:\n    sign_in: {{{sign_in}}}\n" if sign_in else ""
                (folder / "cumulant.yaml").write_text(f"version: 1\nmodel: {{name: {name}}}\n{section}")
                projects[name] = stack.enter_context(load(folder))
            return Server(projects, **options)

        yield start
