"""The trials of a run: of its search where that is done, and until then those that were reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cumulant.core.structs import struct_from
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_views import run_detail
from cumulant.flows.training.fitted import Fitted
from cumulant.training.events import FoldFinished, TrialFinished
from cumulant.training.spec import Parameter

if TYPE_CHECKING:
    from cumulant.flows.ledger.run_views import RunStep
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: the step of a search (`search_step`)
_STEP = "search"
#: states of a trial with folds to come: in a run that goes on, and in one that has ended
RUNNING, UNFINISHED = "running", "unfinished"


class RunTrial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial. `score`: the mean of `scores`, one a fold that was judged; None: not every fold was judged.

    `state`: that of its record once it has ended; until then `running`, or `unfinished` where its run has ended.
    `folds`: of a trial that has not ended, how many it has; else 0.
    """

    number: int
    trainer: str
    state: str
    score: float | None
    seconds: float
    scores: tuple[float, ...] = ()
    params: dict[str, Parameter] = {}
    folds: int = 0


class RunTrials(msgspec.Struct, frozen=True, kw_only=True):
    """The trials of a run, by number. `metric` and `best` are known once the search is `done`; until then the metric
    is empty and `best` None.
    """

    trials: tuple[RunTrial, ...]
    done: bool
    metric: str = ""
    best: int | None = None


@verb("runs.show")
def run_trials(project: Project, name: str, *, principal: Principal) -> RunTrials | None:
    """The trials of a run: its id, the beginning of it, or `latest`; None where it has searched nothing.

    Raises:
        NotFoundError: there is no such run.
        UsageError: several begin so.
    """
    detail = run_detail(project, name, principal=principal)
    fitted = next((known for step in detail.steps if (known := _fitted(step)) is not None), None)
    if fitted is not None:
        trials = tuple(struct_from(RunTrial, trial, folds=0) for trial in fitted.trials)
        return RunTrials(trials=trials, done=True, metric=fitted.summary.metric, best=fitted.summary.best_trial)
    by_number: dict[int, RunTrial] = {}
    open_state = RUNNING if detail.run.status == "running" else UNFINISHED
    for event in project.journal().events(kinds=(TrialFinished.kind, FoldFinished.kind), run=detail.run.id):
        # A search that was taken over after a fault may do a trial again.
        trial = _trial(event.data) if event.kind == TrialFinished.kind else _open_trial(event.data, open_state)
        if trial is not None:
            by_number[trial.number] = trial
    reported = tuple(by_number[number] for number in sorted(by_number))
    return RunTrials(trials=reported, done=False) if reported else None


def _fitted(step: RunStep) -> Fitted | None:
    if step.name != _STEP or not step.result:
        return None
    try:
        return msgspec.convert(step.result, Fitted)
    except msgspec.ValidationError:  # another version of the program did it
        return None


def _open_trial(data: dict[str, object], state: str) -> RunTrial | None:
    return _trial(data | {"state": state, "score": None})


def _trial(data: dict[str, object]) -> RunTrial | None:
    try:
        return msgspec.convert(data, RunTrial)
    except msgspec.ValidationError:
        return None
