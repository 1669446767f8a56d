"""A release followed until it is over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cumulant.cli.invocation import Invocation
from cumulant.cli.release.release_page import line, page
from cumulant.flows.release import store

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.project.project import Project
    from cumulant.release.state import Release

_LOOK_SECONDS = 0.5


def follow(call: Invocation, project: Project, model: str, identity: str, *, last_only: bool = False) -> Release:
    """Show the release until it is over: live on a terminal, else a line a change."""
    console = call.output.console()
    if not call.json and console.is_terminal and not console.is_dumb_terminal:
        return _live(console, project, model, identity)
    from cumulant.flows.release.views import view

    printed: object = None
    last: Release | None = None
    for last in _changes(project, model, identity):
        now = (last.status, last.at, None if call.json else last.reason if last.over else "")
        if now != printed and not (call.json and last_only):
            printed = now
            if call.json:
                call.output.document(view(last), compact=True)
            else:
                console.print(line(view(last)), soft_wrap=True)
    assert last is not None
    return last


def _live(console: Console, project: Project, model: str, identity: str) -> Release:
    from rich.live import Live

    from cumulant.flows.release.views import view

    last: Release | None = None
    with Live(console=console, auto_refresh=False) as live:
        for last in _changes(project, model, identity):
            live.update(page(view(last)), refresh=True)
    assert last is not None
    return last


def _changes(project: Project, model: str, identity: str) -> Iterator[Release]:
    while True:
        release = next((other for other in store.list_releases(project.journal(), model) if other.id == identity), None)
        if release is not None:
            yield release
            if release.over:
                return
        time.sleep(_LOOK_SECONDS)
