"""What is done about a job that was started: a pure function of what was seen of it before, what is seen now, and the
time.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec

JobCondition = Literal[
    "running", "restarting", "ending", "several", "cancelled", "stopped", "failed", "lost", "not started"
]
#: conditions in which nothing runs, and no operator wanted that
_FAULTS = frozenset({"failed", "lost", "not started"})
#: starts within `_SPAN`, and the pause after the first, which doubles with each
MOST_TRIES = 5
_SPAN, _FIRST_PAUSE = timedelta(hours=1), timedelta(minutes=1)
#: looks within `_UNSTABLE_SPAN` that saw a job restart, from which on it restarts again and again
_UNSTABLE, _UNSTABLE_SPAN = 3, timedelta(minutes=10)
#: how long an engine may not answer
_UNREACHABLE = timedelta(minutes=5)

_replace = msgspec.structs.replace


class JobSight(msgspec.Struct, frozen=True, kw_only=True):
    """The job of the definition that was started last, as the engine has it. `condition`: `cancelled` and `stopped` by
    tools of the engine, `lost`: the engine does not know it, `not started`: its submission failed; `several` run.
    `restores`: how often it went on from a checkpoint; None: not known.
    """

    name: str
    job: str
    condition: JobCondition
    restores: int | None = None


class JobWatch(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a job between two looks.

    Attributes:
        name: of the job, by its definition.
        job: its id.
        condition: as it was seen, but `restarting` only where it restarts again and again.
        since: when that was seen first.
        restores: as seen last.
        restarts: recent looks that saw it restart.
        tries: recent starts by the supervision.
        failure: why the last of them failed; empty: it did not.
        refused: whether that will not change by itself, so that an operator starts the job.
        silent: since when the engine does not answer, `silence`: in its words.
    """

    name: str
    job: str
    condition: JobCondition
    since: datetime
    restores: int | None = None
    restarts: tuple[datetime, ...] = ()
    tries: tuple[datetime, ...] = ()
    failure: str = ""
    refused: bool = False
    silent: datetime | None = None
    silence: str = ""

    @property
    def faulty(self) -> bool:
        return self.condition not in {"running", "ending"}

    def unreachable(self, now: datetime) -> bool:
        """Whether the engine has not answered for too long."""
        return self.silent is not None and now - self.silent >= _UNREACHABLE

    def next_try(self, now: datetime) -> datetime | None:
        """When the job is started again; None: not by the supervision."""
        if self.condition not in _FAULTS or self.refused:
            return None
        tries = _recent(self.tries, now, _SPAN)
        if len(tries) >= MOST_TRIES:
            return tries[-MOST_TRIES] + _SPAN
        return tries[-1] + _FIRST_PAUSE * 2 ** (len(tries) - 1) if tries else now


def look(before: JobWatch | None, sight: JobSight, now: datetime) -> tuple[JobWatch, bool]:
    """What is remembered after a look, and whether the job is started again now, which counts as a try."""
    before = _before(before, sight.name, sight.job, now)
    if before.job != sight.job:  # somebody started it, perhaps the supervision
        before = _replace(before, job=sight.job, restores=None, restarts=(), failure="", refused=False)
    restarts = before.restarts
    more = sight.restores is not None and before.restores is not None and sight.restores > before.restores
    if more or sight.condition == "restarting":
        restarts = (*_recent(restarts, now, _UNSTABLE_SPAN), now)
    condition = _condition(before, sight, len(_recent(restarts, now, _UNSTABLE_SPAN)))
    after = _replace(
        before,
        condition=condition,
        since=before.since if condition == before.condition else now,
        restores=before.restores if sight.restores is None else sight.restores,
        restarts=restarts,
        silent=None,
        silence="",
    )
    due = after.next_try(now)
    if due is None or due > now:
        return after, False
    return _replace(after, tries=(*_recent(after.tries, now, _SPAN), now), failure=""), True


def look_away(before: JobWatch | None, name: str, job: str, reason: str, now: datetime) -> JobWatch:
    """What is remembered of a job where the engine does not answer: all else stays."""
    before = _before(before, name, job, now)
    return _replace(before, silent=before.silent or now, silence=reason)


def failed_try(before: JobWatch, reason: str, *, refused: bool) -> JobWatch:
    """What is remembered of a start that failed. `refused`: and fails again until an operator does something."""
    return _replace(before, failure=reason, refused=refused)


def _before(before: JobWatch | None, name: str, job: str, now: datetime) -> JobWatch:
    """What is known of the job of this definition; that of another one has nothing to do with it."""
    if before is None or before.name != name:
        return JobWatch(name=name, job=job, condition="running", since=now)
    return before


def _condition(before: JobWatch, sight: JobSight, restarts: int) -> JobCondition:
    if sight.condition == "ending":  # it is something else soon
        return before.condition
    if sight.condition in {"running", "restarting"}:
        return "restarting" if restarts >= _UNSTABLE else "running"
    return sight.condition


def _recent(moments: tuple[datetime, ...], now: datetime, span: timedelta) -> tuple[datetime, ...]:
    return tuple(moment for moment in moments if now - moment < span)
