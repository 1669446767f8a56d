"""A release followed until it is over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cumulant.cli.invocation import Invocation
from cumulant.cli.release.release_page import line, page
from cumulant.core.errors import EngineUnavailableError

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.release.views import ReleaseView
    from cumulant.server.client.caller import OperationCaller

#: between two reads of the release: of the project itself, and of a server
_PROJECT_SECONDS, _SERVER_SECONDS = 0.5, 1.0


def follow(
    call: Invocation, api: OperationCaller, model: str, identity: str, *, last_only: bool = False
) -> ReleaseView:
    """Show the release until it is over: live on a terminal, else a line a change."""
    console = call.output.console()
    if not call.json and console.is_terminal and not console.is_dumb_terminal:
        return _live(call, console, api, model, identity)
    printed: object = None
    last: ReleaseView | None = None
    for last in _changes(call, api, model, identity):
        now = (last.status, last.step, None if call.json or last.ended is None else last.reason)
        if now != printed and not (call.json and last_only):
            printed = now
            if call.json:
                call.output.document(last, compact=True)
            else:
                console.print(line(last), soft_wrap=True)
    assert last is not None
    return last


def _live(call: Invocation, console: Console, api: OperationCaller, model: str, identity: str) -> ReleaseView:
    from rich.live import Live

    last: ReleaseView | None = None
    with Live(console=console, auto_refresh=False) as live:
        for last in _changes(call, api, model, identity):
            live.update(page(last), refresh=True)
    assert last is not None
    return last


def _changes(call: Invocation, api: OperationCaller, model: str, identity: str) -> Iterator[ReleaseView]:
    """The release as it is, again and again. Its state is read, not its events: who may see releases may follow one."""
    lost = False
    while True:
        try:
            release: ReleaseView = api.call("releases.show", release=identity, model=model)
        except EngineUnavailableError as error:
            if not call.server:
                raise
            if not lost:
                call.note(f"{error.message}; it is tried again, and the release goes on without this command")
            lost = True
        else:
            lost = False
            yield release
            if release.ended is not None:
                return
        time.sleep(_SERVER_SECONDS if call.server else _PROJECT_SECONDS)
