"""The step `search`: a model is searched, fitted on the training rows and stored by its content's name."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import IntegrityError
from cumulant.core.ids import digest
from cumulant.core.refs import ObjectRef
from cumulant.core.structs import struct_from
from cumulant.core.system.memory import release_free_memory
from cumulant.core.units import from_micros, to_micros
from cumulant.flows.ledger.step_function import StepFunction, supports_hosts
from cumulant.flows.serving.reason_codes import check_when
from cumulant.flows.training.chosen_rows import chosen_rows
from cumulant.flows.training.fitted import ChosenCount, Fitted, SplitSummary
from cumulant.flows.training.memory_check import refuse_too_many_rows
from cumulant.flows.training.split_rule import SplitRule, rule_of
from cumulant.flows.training.target_classes import KnownClasses, class_counts, class_warnings, known_classes
from cumulant.flows.training.training_identity import work_from_json
from cumulant.flows.training.training_rows import labelled_rows
from cumulant.training.policy import ThresholdPolicy
from cumulant.training.records import TrialRecord
from cumulant.training.spec import Parameter

if TYPE_CHECKING:
    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.training.chosen_rows import ChosenRows
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.project.project import Project
    from cumulant.training.dataset import TrainingSet
    from cumulant.training.events import FoldFinished, SearchFinished, TrialFinished
    from cumulant.training.model import FittedModel
    from cumulant.training.search.search import SearchResult
    from cumulant.training.search.trial_journal import CopiedFolder
    from cumulant.training.splits import TrainTestSplit


_LEAST_QUICK_ROWS = 5000
#: folds of trials that are reported however quick they were
_BURST = 5
#: after so many reported folds a search of hours reports fewer: each is an event of the ledger
_MANY = 1_000
#: the folder, and the first part of the objects' keys, of the trials of searches
SEARCH = "search"


def fit(context: Context, work: TrainingWork, *, champion: Mapping[str, Parameter] | None) -> Fitted:
    """Search and fit, or find it done. A search that was cut off resumes with its next trial.

    Raises:
        DataError: other values have made the target another task than it was.
        UsageError: the rows take more than `resources.memory`, or without it more than the machine has.
    """
    objects = context.project.objects()
    inputs = {**work.inputs, "champion": champion}
    known = known_classes(context.project)  # another machine may not reach the registry

    def stands(result: Mapping[str, object]) -> bool:
        fitted = msgspec.convert(result, Fitted)
        return all(objects.find(ref.key) is not None for ref in (fitted.model, fitted.naive))

    outcome = context.step(
        "search",
        inputs,
        lambda: _search(context, work, champion=champion, known=known, scratch=digest(inputs)),
        function=StepFunction(
            f"{__name__}:{run_search.__name__}",
            {
                "work": work.to_json(),
                "champion": champion and dict(champion),
                "known": msgspec.to_builtins(known),
                "scratch": digest(inputs),
            },
        ),
        verify=stands,
    )
    return msgspec.structs.replace(msgspec.convert(outcome.result, Fitted), reused=outcome.reused)


def run_search(
    context: Context, *, work: object, champion: dict[str, Parameter] | None, known: object, scratch: str
) -> dict[str, object]:
    """The step in a process of its own: a `Fitted`. `scratch`: the name of the folder of its trials."""
    before = msgspec.convert(known, KnownClasses | None)
    return _search(context, work_from_json(context.project, work), champion=champion, known=before, scratch=scratch)


def _search(
    context: Context,
    work: TrainingWork,
    *,
    champion: Mapping[str, Parameter] | None,
    known: KnownClasses | None,
    scratch: str,
) -> dict[str, object]:
    # Here alone: what is read later fits beside less than a search takes, and a refusal would waste the search.
    from cumulant.training.evaluation.gate import check_gate
    from cumulant.training.search.search import search as search_models
    from cumulant.training.trainers.trainer_checks import check_trainers

    refuse_too_many_rows(context.project, work.task, work.snapshot, work.training, as_of=work.as_of, share=work.sample)
    if work.training.rows is not None:
        context.progress("choose the rows to learn from")
    chosen = chosen_rows(context.project, work.snapshot, work.training, as_of=work.as_of)
    split = rows_of(context, work, leakage=True)
    counts = class_counts(split.train, split.test)
    kind = split.train.task
    warnings = class_warnings(context.project, work.task, work.snapshot, known=known, kind=kind, counts=counts)
    split = replace(split, train=replace(split.train, warnings=(*split.train.warnings, *warnings)))
    costs = split.train.false_negative is not None
    check_gate(work.evaluation.gate, task=split.train.task, costs=costs)
    check_trainers(work.training, split.train.task, split.train.classes, root=context.project.root)
    check_when(context.project.policies.serving.reasons, split.train.task)
    context.progress("search", 0.0)
    rows = [sample_training_rows(split.train, work)]
    split = split.without_columns()
    search_result = search_models(
        rows.pop(),  # so that the search alone holds the features, and lets them go once they are encoded
        work.training,
        root=context.project.root,
        scratch=_trial_folder(context.project, scratch),
        champion=champion,
        progress=context.progress,
        on_trial=lambda trial: context.emit(_trial_event(trial)),
        on_fold=FoldReports(context.emit),
    )
    context.emit(_search_event(search_result))
    fitted = Fitted(
        model=store_model(context, search_result.best),
        naive=store_model(context, search_result.naive),
        summary=search_result.summary,
        trials=search_result.trials,
        split=_summary(split, rule_of(context.project, work, split), chosen),
    )
    return msgspec.to_builtins(fitted)  # type: ignore[no-any-return]


def _trial_folder(project: Project, name: str) -> Path | CopiedFolder:
    """Where a search keeps its trials: in the state folder, and in an object store that other machines use too."""
    from cumulant.training.search.trial_journal import CopiedFolder

    folder = project.state / SEARCH / name
    return CopiedFolder(folder, project.objects(), f"{SEARCH}/{name}") if supports_hosts(project, "objects") else folder


def sample_training_rows(rows: TrainingSet, work: TrainingWork) -> TrainingSet:
    """The rows that are learned from, by age where the project says so; for a quick look a share of them, but never
    fewer than a few thousand.
    """
    from cumulant.training.weighting import weighted

    rows = weighted(rows, work.training)
    share = max(work.sample, _LEAST_QUICK_ROWS / max(1, len(rows)))
    counted = rows.task == "binary" and isinstance(work.training.threshold, ThresholdPolicy)
    return rows.sample(share, seed=work.training.seed, counted=counted) if share < 1 else rows


def rows_of(context: Context, work: TrainingWork, *, leakage: bool = False) -> TrainTestSplit:
    """The training rows and the test rows. The search asks for `leakage`: a feature that gives the target away is
    refused or named, once for these rows.
    """
    from cumulant.training.splits import split

    rows = _labelled(context, work, leakage=leakage)
    parts = split(
        rows,
        work.evaluation,
        seed=work.training.seed,
        horizon=horizon_of(rows, work.as_of),
        change=None if work.change is None else to_micros(work.change),
    )
    # Cases were chosen to be hard: a figure over them would tell of the choice, not of the model.
    return parts if parts.test.reviewed is None else replace(parts, test=parts.test.take(~parts.test.reviewed))


def all_rows(context: Context, work: TrainingWork) -> TrainingSet:
    """The rows of training and test and those between, so far as they are old enough for any label to be known."""
    from cumulant.training.splits import ripened  # loads Polars, which commands that read a record do without

    rows = _labelled(context, work)
    return rows.take(ripened(rows, horizon_of(rows, work.as_of)))


def _labelled(context: Context, work: TrainingWork, *, leakage: bool = False) -> TrainingSet:
    release_free_memory()  # what the step before has freed is as much again as the rows that are read now
    return labelled_rows(
        context.project,
        work.task,
        work.snapshot,
        work.table,
        spec=work.training,
        evaluation=work.evaluation,
        as_of=work.as_of,
        reviewed=work.reviewed,
        by_hash=work.by_hash,
        leakage=leakage,
    )


def horizon_of(rows: TrainingSet, as_of: datetime | None) -> int | None:
    """When the data were seen: `as_of`, else the last moment at which they tell anything."""
    if as_of is not None:
        return to_micros(as_of)
    if rows.at is None or rows.known is None or not len(rows):
        return None
    return max(int(rows.at.max()), int(rows.known.max()))


def store_model(context: Context, model: FittedModel) -> ObjectRef:
    """The model in the object store, named by its content: equal models are one object."""
    with tempfile.TemporaryDirectory() as folder:
        content = model.to_folder(Path(folder) / "model")
        return context.project.objects().put(_key(content), content)


def load_model(project: Project, ref: ObjectRef) -> FittedModel:
    """A stored model, verified by its name: an engine may end the process at half a file.

    Raises:
        NotFoundError: it is gone.
        IntegrityError: its files are not what was stored.
    """
    from cumulant.training.model import FittedModel

    with project.objects().open(ref.key) as folder:
        if _key(folder) != ref.key:
            raise IntegrityError(
                f"the stored model {ref.key} is damaged: its files are not those that were stored",
                subject=ref.key,
                hint="restore it from a backup, or delete the object and run `cumulant train`, which fits it again",
            )
        return FittedModel.from_folder(folder)


def _key(folder: Path) -> str:
    """The name of a model by the content of its files."""
    return f"models/{digest({path.name: path.read_bytes().hex() for path in sorted(folder.iterdir())})}"


def _summary(split: TrainTestSplit, rule: SplitRule | None, chosen: ChosenRows | None) -> SplitSummary:
    train, test = _time_range(split.train), _time_range(split.test)
    return SplitSummary(
        how=split.how,
        train=len(split.train),
        test=len(split.test),
        unlabelled=split.train.unlabelled,
        left_out=split.left_out,
        reviewed=0 if split.train.reviewed is None else int(split.train.reviewed.sum()),
        train_from=train[0],
        train_to=train[1],
        test_from=test[0],
        test_to=test[1],
        rule=rule,
        classes=class_counts(split.train, split.test),
        chosen=None if chosen is None else ChosenCount(rows=len(chosen.positions), of=chosen.of),
    )


def _time_range(rows: TrainingSet) -> tuple[datetime | None, datetime | None]:
    """The first and last moment of prediction."""
    if rows.at is None or not len(rows):
        return None, None
    return from_micros(int(rows.at.min())), from_micros(int(rows.at.max()))


class FoldReports:
    """Emits the folds of trials under way: each at once while they take a second or more, and of quicker ones at most
    one a second and `_BURST` besides; after `_MANY` at most one a minute. What is left out is in the next one of its
    trial, or where the trial ends.
    """

    def __init__(self, emit: Callable[[FoldFinished], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._emit, self._clock, self._lock = emit, clock, threading.Lock()
        self._allowed, self._at, self._sent = float(_BURST), clock(), 0

    def __call__(self, fold: FoldFinished) -> None:
        with self._lock:
            now = self._clock()
            of_second = 1.0 if self._sent < _MANY else 1 / 60
            self._allowed, self._at = min(_BURST, self._allowed + (now - self._at) * of_second), now
            if self._allowed < 1:
                return
            self._allowed, self._sent = self._allowed - 1, self._sent + 1
            self._emit(fold)


def _trial_event(trial: TrialRecord) -> TrialFinished:
    from cumulant.training.events import TrialFinished

    return struct_from(TrialFinished, trial)


def _search_event(result: SearchResult) -> SearchFinished:
    from cumulant.training.events import SearchFinished

    summary = result.summary
    return SearchFinished(
        trainer=summary.trainer,
        metric=summary.metric,
        score=summary.score,
        naive_score=summary.scores["naive"],
        trials=summary.trials,
        folds=len(summary.folds),
        rows=summary.rows,
        seconds=summary.seconds,
    )
