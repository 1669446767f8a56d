"""The events of a project: a timeline with filters, the newest first; new ones are added as they happen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.console.page_request import Crumb, Nav, PageRequest, PageRoute
from cumulant.core.errors import UsageError
from cumulant.flows.ledger.event_pages import EventFilter, event_page
from cumulant.flows.reports import wording

if TYPE_CHECKING:
    from starlette.responses import Response

    from cumulant.core.events import Event

_ACTION = "events.show"
_PAGE = 50
#: a pause between two events that is worth a line
_GAP = timedelta(hours=1)
#: most values of a line, and characters of one
_VALUES, _CHARACTERS = 6, 60
#: the value of the filter for what an operator looks for first: what changed and what failed, without the steps of runs
_CHANGES = "changes"
_CHANGE_KINDS = (
    "alert.",
    "data.",
    "deployment.",
    "features.state_lost",
    "model.",
    "monitoring.retraining_*",
    "notify.failed",
    "notify.refused",
    "release.ended",
    "release.held",
    "release.resumed",
    "release.rolled_back",
    "release.slo_*",
    "release.started",
    "release.step_begun",
    "release.waits",
    "run.failed",
    "stack.",
    "step.failed",
    "traffic.routes_changed",
    "training.gate_decided",
)
#: groups of kinds that the filter offers
GROUPS = (
    ("", "all kinds"),
    (_CHANGES, "changes and failures"),
    ("release.", "releases"),
    ("alert.", "alerts"),
    ("model.", "models"),
    ("data.", "data"),
    ("monitoring.", "monitoring"),
    ("review.", "review"),
    ("run.", "runs"),
    ("step.", "steps"),
    ("stack.", "stack"),
    ("access.", "access"),
)
_BAD = frozenset({"refused", "failed", "fired", "rolled_back", "rows_quarantined", "state_lost"})
_GOOD = frozenset({"resolved", "snapshot_accepted"})
_PROCESS_ENDED = "stack.process_ended"
#: causes of the ends of processes that were requested, as the supervisor writes them
REQUESTED_ENDS = frozenset(
    {
        "it is no longer wanted",
        "it was asked to end",
        "its settings changed",
        "the process that started it has ended",
        "the supervisor ends",
    }
)
_KEY = frozenset({"release.started", "release.ended", "model.aliased", "training.gate_decided"})


class Line(NamedTuple):
    """An event of the timeline. `gap`: the pause after the event below it, where it is long."""

    event: Event
    text: str
    tone: str
    detail: str
    gap: str


def events(page: PageRequest) -> Response:
    query, before = _filter(page), _before(page)
    listed = event_page(page.project, query, principal=page.principal, before=before, limit=_PAGE)
    own = {name: page.query(name) for name in ("kind", "actor", "text", "run") if page.query(name)}
    older = "" if listed.before is None else page.href("events", **own, before=str(listed.before))
    newest = page.href("events", **own)
    return page.page(
        "events.html.jinja",
        title=f"Events of {page.project.name}",
        crumbs=[Crumb(page.project.name, page.href()), Crumb("Events")],
        live=before is None,
        rows=page.site.rows.render(
            "event",
            with_gaps(listed.events),
            key=lambda item: (item[0].hash, item[1]),
            values=lambda item: {"line": line_of(*item)},
            here=page.href("events"),
        ),
        listed=listed,
        older=older,
        newest=newest if before is not None else "",
        here=page.href("events"),
        lineage=page.href("lineage") if page.may("lineage.show") else "",
        given={name: page.query(name) for name in ("kind", "actor", "text", "run")},
        groups=GROUPS,
    )


def _filter(page: PageRequest) -> EventFilter:
    kind = page.query("kind")
    kinds = _CHANGE_KINDS if kind == _CHANGES else (kind,) if kind else ()
    return EventFilter(kinds=kinds, actor=page.query("actor"), text=page.query("text"), run=page.query("run"))


def _before(page: PageRequest) -> int | None:
    text = page.query("before")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise UsageError("the cursor is none of this list", subject="before", hint="open the list from its beginning")
    return int(text)


def with_gaps(listed: Iterable[Event]) -> Iterator[tuple[Event, str]]:
    """Events with the pause after the one below, where it is long; `listed` the newest first."""
    events = list(listed)
    olders: list[Event | None] = [*events[1:], None][: len(events)]
    return ((event, _gap(event.time, older)) for event, older in zip(events, olders, strict=True))


def line_of(event: Event, gap: str) -> Line:
    return Line(event, event_text(event), tone(event), _detail(event), gap)


def tone(event: Event) -> str:
    """How an event reads at a glance: `bad`, `good`, `key` or nothing."""
    kind = event.kind
    if kind == _PROCESS_ENDED:
        return "" if event.data["cause"] in REQUESTED_ENDS else "bad"
    last = kind.rpartition(".")[2]
    if last in _BAD or last.endswith("_refused"):
        return "bad"
    return "good" if last in _GOOD else "key" if kind in _KEY else ""


def event_text(event: Event) -> str:
    """The first values of an event in a line: `source weather · rows 4`, after the reason that its actor gave."""
    values = [
        f"{name.replace('_', ' ')} {_short(value)}"
        for name, value in event.data.items()
        if value not in (None, "", [], {}, event.project) and not isinstance(value, dict) and not _is_digest(value)
    ]
    reason = f'"{event.reason}"' if event.reason else ""
    return " · ".join(filter(None, (reason, *values[:_VALUES])))


def _short(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return str(len(value))
    text = f"{value:g}" if isinstance(value, float) and value == int(value) else wording.value(value)
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and all(letter in "0123456789abcdef" for letter in value)


def _detail(event: Event) -> str:
    return msgspec.json.format(msgspec.json.encode(event.data), indent=2).decode()


def _gap(time: datetime, older: Event | None) -> str:
    if older is None or time - older.time < _GAP:
        return ""
    return f"{wording.duration((time - older.time).total_seconds())} without events"


ROUTES = (PageRoute("/projects/{project}/events", events, _ACTION, nav=Nav("Events", "e")),)
