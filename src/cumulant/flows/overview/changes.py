"""What was changed last before something went wrong: promotions, rollbacks, refused data, starts of servers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.release.wording import version_name

if TYPE_CHECKING:
    from cumulant.core.events import Event

#: the newest events of the kinds that report them, so many of which are read and kept
SEARCHED = 5_000


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


def change_of(event: Event) -> Change | None:
    """The change that an event of `CHANGE_KINDS` reports; None where callers get what they got before."""
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
    "release.ended": lambda data: (
        f"{version_name(data['candidate'])} {_ENDINGS.get(data['status'], 'was not promoted')}"
    ),
    "release.rolled_back": lambda data: f"all requests were sent back to {version_name(data['version'])}",
    "release.step_begun": lambda data: f"a release went to {data['step']}",
    "data.snapshot_refused": lambda data: f"data of {data['source']} were refused",
    "stack.process_ended": lambda data: f"the process {data['name']} ended",
    "model.aliased": lambda data: (
        f"version {data['version']} became the champion"
        if data["alias"] == "champion" and data["version"] != "None"
        else ""
    ),
}
CHANGE_KINDS = tuple(_TEXTS)
