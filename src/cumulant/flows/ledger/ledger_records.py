"""The rows that the ledger keeps in the journal: one a step, one a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Literal

import msgspec

from cumulant.core.errors import CumulantError, RefusedError, StepFailedError, error_from, is_interrupt
from cumulant.flows.ledger.lease import LeaseWatch
from cumulant.flows.ledger.processes import Process, is_gone, is_here
from cumulant.ports.journal import Journal, Row

STEP, RUN = "step", "run"
#: rows of the API: requests under a key, with the responses that they had
API_REQUEST = "api_request"
_PAUSE = 0.25

Json = dict[str, object]
StepStatus = Literal["running", "done", "failed", "interrupted"]
RunStatus = Literal["running", "done", "failed", "refused", "interrupted", "lost"]
RunVerdict = Literal["passed", "refused"]


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A `step` row; its key is the step's identity. `lease` and `seconds` are in seconds."""

    name: str
    status: StepStatus
    inputs: object
    code: str
    attempt: int
    run: str
    holder: Process
    lease: float
    started: datetime
    seconds: float = 0
    result: Json | None = None
    error: Json | None = None


class StepUse(msgspec.Struct, frozen=True):
    """A step that a run needed: `identity` is the key of its row. `seconds` that it took in this run, those of steps
    within it included: 0 where it was found done, and in records of before.
    """

    name: str
    identity: str
    reused: bool
    seconds: float = 0


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A `run` row. `lost`: its process ended without a word; run again, it goes on after the last done step.

    `verdict`: the gate's verdict in a run that ended (`done`); None where no gate was evaluated.
    """

    id: str
    flow: str
    status: RunStatus
    principal: str
    settings: Json
    process: Process
    #: seconds without a write of the row after which the process counts as gone
    lease: float = 60.0
    started: datetime
    finished: datetime | None = None
    seconds: float = 0
    steps: tuple[StepUse, ...] = ()
    error: Json | None = None
    verdict: RunVerdict | None = None

    @property
    def ended(self) -> str:
        """The status as text, with the gate's refusal."""
        if self.status == "lost":
            return "lost (its process is gone)"
        return "done (gate refused)" if self.status == "done" and self.verdict == "refused" else self.status


def read_step(row: Row) -> StepRecord:
    return msgspec.convert(row.value, StepRecord)


def read_run(row: Row) -> RunRecord:
    """The run as it stands now: one whose process is gone is `lost`."""
    return as_now(stored_run(row))


def stored_run(row: Row) -> RunRecord:
    """The run as it was written last."""
    return msgspec.convert(row.value, RunRecord)


def as_now(record: RunRecord) -> RunRecord:
    lost = record.status == "running" and is_gone(record.process)
    return msgspec.structs.replace(record, status="lost") if lost else record


def runs(journal: Journal) -> list[RunRecord]:
    """All runs, newest first."""
    return sorted(map(read_run, journal.rows(RUN)), key=lambda run: run.started, reverse=True)


def is_under_way(journal: Journal, run: RunRecord, *, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Whether the process of a running run still works on it. One of another machine is watched until it renews the
    row, a sixth of the run's lease, or does not for the whole lease.
    """
    if is_here(run.process):
        return not is_gone(run.process)
    watch = LeaseWatch()
    while (row := journal.get(RUN, run.id)) and msgspec.convert(row.value, RunRecord).finished is None:
        if watch.has_lapsed(RUN, row.version, ttl=run.lease, holder=run.process):
            return False
        if watch.saw_renewal(RUN):
            return True
        sleep(_PAUSE)
    return False


def describe(error: BaseException) -> Json:
    """An error for a row or an event. Of an error that is none of ours only the type: its words may hold data."""
    if isinstance(error, CumulantError):
        return error.as_dict()
    return {"code": "internal", "error": type(error).__name__, "retryable": False}


def recorded_error(error: Json, step: str) -> CumulantError:
    """The error that `describe` wrote, of its own class again; StepFailedError for what was none of ours."""
    recorded = error_from(error, StepFailedError)
    if type(recorded) is StepFailedError:
        return error_from(error | {"error": f"step {step} failed: {error.get('error')}"}, StepFailedError)
    return recorded


def ending(error: BaseException) -> RunStatus:
    """How a run ends by `error`."""
    if isinstance(error, RefusedError):
        return "refused"
    return "interrupted" if is_interrupt(error) else "failed"
