"""What is done about a job that was started: a pure function of what is known of it, what is observed now, and the
time.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec

JobCondition = Literal[
    "running", "restarting", "ending", "stuck", "several", "cancelled", "stopped", "failed", "lost", "not started"
]
#: conditions in which nothing runs, and no operator caused that
_FAULTS = frozenset({"failed", "lost", "not started"})
#: conditions that an operator caused by tools of the engine, which forgets them
_ENDED_BY_OPERATOR = frozenset({"cancelled", "stopped"})
#: conditions between which a job changes that starts and fails again and again
_LOOPING = _FAULTS | {"running", "restarting"}
#: starts within `_SPAN`, and the pause after the first, which doubles with each
MOST_TRIES = 5
_SPAN, _FIRST_PAUSE = timedelta(hours=1), timedelta(minutes=1)
#: starts that succeeded within `_SPAN`, from which on the job starts and fails again and again
_LOOP = 3
#: starts in a row that succeeded and brought neither a checkpoint nor a result, after which there are no more
MOST_WITHOUT_PROGRESS = 10
#: observations within `_UNSTABLE_SPAN` of a restart, from which on the job restarts again and again
_UNSTABLE, _UNSTABLE_SPAN = 3, timedelta(minutes=10)
#: how long a job may be ending
_STUCK = timedelta(minutes=10)
#: how long an engine may not answer
_UNREACHABLE = timedelta(minutes=5)

_replace = msgspec.structs.replace


class JobObservation(msgspec.Struct, frozen=True, kw_only=True):
    """The job of the definition that was started last, as the engine has it.

    Attributes:
        name: of the job, by its definition.
        job: its id.
        condition: `cancelled` and `stopped` by tools of the engine, `lost`: the engine does not know it, `not started`:
            its submission failed; `several` run.
        restores: how often it went on from a checkpoint; None: not known.
        progressed: whether it has a checkpoint of its own; None: no checkpoint is known.
        results: how far its topic went at its start, in messages.
        folder: that of its checkpoints; None: not known.
    """

    name: str
    job: str
    condition: JobCondition
    restores: int | None = None
    progressed: bool | None = None
    results: int = 0
    folder: str | None = None


class JobWatch(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a job between two evaluations.

    Attributes:
        name: of the job, by its definition.
        job: its id.
        condition: as observed, but `restarting` only where it restarts again and again, and `stuck` for `ending` that
            takes too long.
        since: when that began, or the fault of which it is a part.
        restores: as observed last.
        restarts: recent observations of a restart.
        ending_since: since when it is ending.
        folder: that of its checkpoints, as observed last.
        tries: recent starts by the supervision, those that failed too.
        starts: those that succeeded; `started`: the job of the newest.
        without_progress: how many of them in a row brought neither a checkpoint nor a result.
        results: how far its topic went at the newest start, in messages.
        looping: whether it starts and fails again and again.
        failure: why the last try failed; empty: it did not.
        refused: whether an operator has to do something about that.
        unreachable_since: since when the engine does not answer, `unreachable_reason`: its first words.
    """

    name: str
    job: str
    condition: JobCondition
    since: datetime
    restores: int | None = None
    restarts: tuple[datetime, ...] = ()
    ending_since: datetime | None = None
    folder: str | None = None
    tries: tuple[datetime, ...] = ()
    starts: tuple[datetime, ...] = ()
    started: str = ""
    without_progress: int = 0
    results: int = 0
    looping: bool = False
    failure: str = ""
    refused: bool = False
    unreachable_since: datetime | None = None
    unreachable_reason: str = ""

    @property
    def faulty(self) -> bool:
        return self.looping or self.condition not in {"running", "ending"}

    @property
    def given_up(self) -> bool:
        """Whether it does not run, and was started too often without progress."""
        return self.condition in _FAULTS and self.without_progress >= MOST_WITHOUT_PROGRESS

    def unreachable(self, now: datetime) -> bool:
        """Whether the engine has not answered for too long."""
        return self.unreachable_since is not None and now - self.unreachable_since >= _UNREACHABLE

    def next_try(self, now: datetime) -> datetime | None:
        """When the job is started again; None: not by the supervision."""
        if self.condition not in _FAULTS or self.given_up:
            return None
        tries = _recent(self.tries, now, _SPAN)
        if not tries:
            return now
        if self.refused:
            return tries[-1] + _SPAN
        if len(tries) >= MOST_TRIES:
            return tries[-MOST_TRIES] + _SPAN
        pause: timedelta = _FIRST_PAUSE * 2 ** (len(tries) - 1)
        return tries[-1] + pause


def evaluate(before: JobWatch | None, observed: JobObservation, now: datetime) -> tuple[JobWatch, bool]:
    """What is remembered after an observation, and whether the job is started again now, which counts as a try."""
    before = _before(before, observed.name, observed.job, now)
    condition = _kept(before, observed)
    if before.job != observed.job:
        own = before.started == observed.job
        before = _replace(before, job=observed.job, restores=None, restarts=(), failure="", refused=False)
        if not own:  # an operator has started it
            before = _replace(before, starts=(), without_progress=0)
    restarts = before.restarts
    more = observed.restores is not None and before.restores is not None and observed.restores > before.restores
    if more or condition == "restarting":
        restarts = (*_recent(restarts, now, _UNSTABLE_SPAN), now)
    ending_since = min(before.ending_since or now, now) if condition == "ending" else None
    unstable = len(_recent(restarts, now, _UNSTABLE_SPAN)) >= _UNSTABLE
    stuck = ending_since is not None and now - ending_since >= _STUCK
    condition = _condition(before, condition, unstable=unstable, stuck=stuck)
    progressed = observed.results > before.results if observed.progressed is None else observed.progressed
    after = _replace(
        before,
        condition=condition,
        restores=before.restores if observed.restores is None else observed.restores,
        restarts=restarts,
        ending_since=ending_since,
        folder=observed.folder or before.folder,
        without_progress=0 if progressed else before.without_progress,
        results=observed.results,
        looping=len(_recent(before.starts, now, _SPAN)) >= _LOOP and condition in _LOOPING,
        unreachable_since=None,
        unreachable_reason="",
    )
    same = condition == before.condition and after.looping == before.looping
    if not same and not (after.looping and before.faulty):
        after = _replace(after, since=now)
    due = after.next_try(now)
    if due is None or due > now or observed.condition == "ending":
        return after, False
    return _replace(after, tries=(*_recent(after.tries, now, _SPAN), now), failure="", refused=False), True


def note_unreachable(before: JobWatch | None, name: str, job: str, reason: str, now: datetime) -> JobWatch:
    """What is remembered of a job where the engine does not answer: all else stays."""
    before = _before(before, name, job, now)
    if before.unreachable_since is not None:
        return before
    return _replace(before, unreachable_since=now, unreachable_reason=reason)


def note_failed_start(before: JobWatch, reason: str, *, refused: bool) -> JobWatch:
    """What is remembered of a start that failed. `refused`: and fails again until an operator does something."""
    return _replace(before, failure=reason, refused=refused)


def note_start(before: JobWatch, job: str, now: datetime) -> JobWatch:
    """What is remembered of a start by the supervision that gave the job `job`."""
    starts = (*_recent(before.starts, now, _SPAN), now)
    return _replace(before, starts=starts, started=job, without_progress=before.without_progress + 1)


def _before(before: JobWatch | None, name: str, job: str, now: datetime) -> JobWatch:
    """What is known of the job of this definition; that of another one has nothing to do with it."""
    if before is None or before.name != name:
        return JobWatch(name=name, job=job, condition="running", since=now)
    return before


def _kept(before: JobWatch, observed: JobObservation) -> JobCondition:
    """The condition that was observed, or that of before where the engine has only forgotten it."""
    if observed.condition == "lost" and before.job == observed.job and before.condition in _ENDED_BY_OPERATOR:
        return before.condition
    return observed.condition


def _condition(before: JobWatch, condition: JobCondition, *, unstable: bool, stuck: bool) -> JobCondition:
    if condition == "ending":  # it is something else soon
        return "stuck" if stuck else before.condition
    if condition in {"running", "restarting"}:
        return "restarting" if unstable else "running"
    return condition


def _recent(moments: tuple[datetime, ...], now: datetime, span: timedelta) -> tuple[datetime, ...]:
    """Those of the last `span`; none of the future, where the clock was set back."""
    return tuple(moment for moment in moments if timedelta() <= now - moment < span)
