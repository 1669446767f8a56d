"""Reconciliation: a pure function from wanted and present processes to the actions to take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

Kind = Literal["server", "gateway", "agent", "controller", "console", "observer"]
#: kinds that no caller needs: `up` does not wait for them
UNAWAITED: frozenset[Kind] = frozenset({"controller", "console", "observer"})
Verb = Literal["start", "stop", "forget"]
#: processes that others need start first and end last
_ORDER: tuple[Kind, ...] = ("server", "gateway", "agent", "controller", "console", "observer")
_ENDS: tuple[tuple[Kind, ...], ...] = (("controller", "agent"), ("gateway",), ("server",), ("console", "observer"))


class WantedProcess(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: Kind
    command: tuple[str, ...]
    #: another number means another process
    generation: int = 0
    #: of a server: where it answers, and the version that it serves
    url: str | None = None
    version: str | None = None


class PresentProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process as it is. Times are of a steady clock, in seconds."""

    command: tuple[str, ...]
    alive: bool
    generation: int = 0
    #: it has received the request to end
    stopping: bool = False
    #: no request is under way to it, or its time for that is over
    drained: bool = True
    #: of one that has ended: when it may be started again
    due: float = 0.0


def plan_actions(
    wanted: Mapping[str, WantedProcess], present: Mapping[str, PresentProcess], now: float
) -> list[tuple[Verb, str]]:
    """What to do at `now`, in order; nothing where all is as it should be or only time is missing."""
    ending = [(verb, name) for name, process in present.items() if (verb := _end_action(wanted.get(name), process))]
    coming = [process for process in wanted.values() if _is_startable(present.get(process.name), now)]
    starting: list[tuple[Verb, str]] = [
        ("start", process.name) for process in sorted(coming, key=lambda process: _ORDER.index(process.kind))
    ]
    return [*ending, *starting]


def stop_order(kinds: Mapping[str, Kind]) -> list[list[str]]:
    """Names in the groups in which they end: processes that act on others first, the servers last."""
    groups = [[name for name, kind in kinds.items() if kind in wanted] for wanted in _ENDS]
    return [group for group in groups if group]


def _end_action(wanted: WantedProcess | None, present: PresentProcess) -> Verb | None:
    if wanted is None:
        if not present.alive:
            return "forget"
        return "stop" if present.drained and not present.stopping else None
    changed = present.alive and (present.command, present.generation) != (wanted.command, wanted.generation)
    return "stop" if changed and not present.stopping else None


def _is_startable(present: PresentProcess | None, now: float) -> bool:
    return present is None or (not present.alive and present.due <= now)
