"""What was changed last before something went wrong: promotions, rollbacks, refused data, starts of servers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from cumulant.core.events import Event
    from cumulant.ports.journal import Journal

#: events of the chain's end in which they are searched
_SEARCHED = 5_000


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change, in words. `promotion`: another version got all requests by it. `champion`: the version that it made
    the champion by the alias.
    """

    at: datetime
    kind: str
    text: str
    by: str
    seq: int
    promotion: bool = False
    champion: str = ""


def recent_changes(journal: Journal) -> list[Change]:
    """The changes among the newest events, the newest first."""
    after = max(0, journal.head().seq - _SEARCHED)
    changes = (_change(event) for event in journal.events(after=after, kinds=tuple(_TEXTS)))
    return sorted((change for change in changes if change is not None), key=lambda change: -change.seq)


def waiting_candidate(journal: Journal, model: str) -> str | None:
    """The version that has the alias `candidate`, as far as the newest events say: a training gave it, a release takes
    it away.
    """
    version = None
    after = max(0, journal.head().seq - _SEARCHED)
    for event in journal.events(after=after, kinds=("model.aliased",)):
        if (event.data.get("model"), event.data.get("alias")) == (model, "candidate"):
            version = event.data.get("version")
    return None if version is None else str(version)


def last_before(changes: Sequence[Change], *moments: datetime | None) -> Change | None:
    """The newest change at or before the first of `moments` that has one; without moments, the newest.

    Data may be of the past: what began by the clock of the data is first looked for by that, then by when it was found.
    """
    known = [moment for moment in moments if moment is not None]
    if not known:
        return changes[0] if changes else None
    for moment in known:
        for change in changes:
            if change.at <= moment:
                return change
    return None


def _change(event: Event) -> Change | None:
    # An event of another release of Cumulant may lack a value.
    text = _TEXTS[event.kind](defaultdict(str, {name: str(value) for name, value in event.data.items()}))
    if not text:
        return None
    promotion = event.kind == "model.aliased" or event.data.get("status") == "promoted"
    champion = str(event.data["version"]) if event.kind == "model.aliased" else ""
    return Change(
        at=event.time,
        kind=event.kind,
        text=text,
        by=event.actor,
        seq=event.seq,
        promotion=promotion,
        champion=champion,
    )


_ENDINGS = {"promoted": "was promoted", "rolled_back": "was rolled back", "superseded": "was superseded"}
#: events that change what callers get, each in words; empty: this one does not
_TEXTS: dict[str, Callable[[dict[str, str]], str]] = {
    "release.ended": lambda data: f"version {data['candidate']} {_ENDINGS.get(data['status'], 'was not promoted')}",
    "release.rolled_back": lambda data: f"all requests were sent back to version {data['version']}",
    "release.step_begun": lambda data: f"a release went to {data['step']}",
    "data.snapshot_refused": lambda data: f"data of {data['source']} were refused",
    "stack.process_ended": lambda data: f"the process {data['name']} ended",
    "model.aliased": lambda data: (
        f"version {data['version']} became the champion"
        if data["alias"] == "champion" and data["version"] != "None"
        else ""
    ),
}
