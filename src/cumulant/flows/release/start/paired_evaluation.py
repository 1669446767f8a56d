"""The paired evaluation: both versions of a release on recent labelled rows, scored by their servables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cumulant.core.errors import CumulantError
from cumulant.core.progress import Progress, silent
from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.core.units import micros, to_micros
from cumulant.features.definition.personal_features import personal_features
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.feature_table import feature_set
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.actions import OWN_MODEL, verb
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.registry.champion_scores import model_answers
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.training.search_step import horizon_of
from cumulant.flows.training.tested_model import comparable_tested, tested_model
from cumulant.flows.training.train import work_of
from cumulant.flows.training.training_rows import labelled_rows
from cumulant.flows.training.unseen_rows import unseen_rows
from cumulant.release.admission import refit_fault
from cumulant.release.paired.paired_rows import PairedRows, paired_evaluation

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.registry.champion_scores import ModelAnswers
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.ports.access import Principal
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project
    from cumulant.release.paired.paired_records import PairedEvaluation
    from cumulant.release.policy import PairedPolicy
    from cumulant.training.dataset import TrainingSet
    from cumulant.training.model import FittedModel

#: labelled rows below which nothing is compared
_FEWEST = 200
#: of the rows of another class than the most frequent one
_FEWEST_OF_A_CLASS = 5
#: values of a feature that are segments of their own, and ranges of a number
_VALUES, _RANGES = 40, 20

Versions = Mapping[str, "ModelVersion"]
#: tested models by arm
Tested = Mapping[str, "FittedModel"]
#: by arm, [n] the rows that it did not learn from
Unlearned = Mapping[str, "NDArray[np.bool_]"]


@verb("release.start", of=OWN_MODEL)
def evaluate_pair(
    project: Project,
    champion: str,
    candidate: ModelVersion,
    *,
    policy: PairedPolicy,
    principal: Principal,
    progress: Progress = silent,
) -> tuple[PairedEvaluation | None, tuple[str, ...]]:
    """The version `champion` and the candidate on the same rows, and notes; None with the reason where that cannot be.

    Raises:
        RefusedError: `principal` may not start releases.
    """
    with open_run(project, "compare", principal=principal, progress=progress, quiet=True) as context:
        try:
            known = project.registry().resolve(f"{project.name}/{champion}")
            return _evaluate(context, {CHAMPION: known, CANDIDATE: candidate}, policy)
        except CumulantError as error:
            return None, (_reason(project.vault.redact(error.message)),)


def _reason(why: str) -> str:
    return f"the two versions were not compared on labelled rows of the past: {why}"


def _evaluate(
    context: Context, versions: Versions, policy: PairedPolicy
) -> tuple[PairedEvaluation | None, tuple[str, ...]]:
    project = context.project
    snapshots, _ = snapshots_of(context)
    task = resolve_task(project, snapshots)
    table = feature_set(context, task, snapshots, as_of=None)
    work = work_of(project, task, snapshots, table, as_of=None, quick=False, trials=None, time=None)
    labelled = labelled_rows(
        project, work.task, work.snapshot, work.table, spec=work.training, evaluation=work.evaluation, as_of=None
    )
    evaluation, notes = _evaluate_served(context, work, labelled, versions, policy)
    if evaluation is None or not evaluation.seen_by:
        return evaluation, notes
    tested, doubts = _tested_models(project, versions)
    return _evaluate_tested(context, work, labelled, versions, policy, tested=tested) or (evaluation, (*notes, *doubts))


def _evaluate_served(
    context: Context, work: TrainingWork, labelled: TrainingSet, versions: Versions, policy: PairedPolicy
) -> tuple[PairedEvaluation | None, tuple[str, ...]]:
    """The served models on the rows that the fewest of them learned from."""
    project = context.project
    rows, seen_by = _rows(context, work, labelled, versions, policy, tested={})
    if len(rows) < _FEWEST:
        return None, (_reason(f"{len(rows):,} rows have a label, and {_FEWEST} are needed"),)
    if (alone := _single_class(rows)) is not None:
        return None, (_reason(f"all but fewer than {_FEWEST_OF_A_CLASS} of the labels are {alone}"),)
    answers = {}
    for arm, version in versions.items():
        context.progress(f"compare: the {arm} on {len(rows):,} labelled rows")
        scored, notes = model_answers(context, work, version, rows)
        if scored is None:
            return None, tuple(map(_reason, notes))
        answers[arm] = scored
    usual = _usual_loss(project, versions[CHAMPION], rows)
    evaluation = paired_evaluation(_pair_rows(rows, answers, work, seen_by=seen_by, usual=usual))
    if evaluation is None:
        return None, (_reason("one of them answers none of the rows"),)
    return evaluation, tuple(
        f"the {arm} may have learned from the labelled rows that both versions were compared on" for arm in seen_by
    )


def _evaluate_tested(
    context: Context,
    work: TrainingWork,
    labelled: TrainingSet,
    versions: Versions,
    policy: PairedPolicy,
    *,
    tested: Tested,
) -> tuple[PairedEvaluation, tuple[str, ...]] | None:
    """The tested models on rows that neither learned from; None where that cannot be, or the refit is worse."""
    project, candidate = context.project, versions[CANDIDATE]
    if CANDIDATE not in tested:
        return None
    rows, seen_by = _rows(context, work, labelled, versions, policy, tested=tested)
    if seen_by or len(rows) < _FEWEST or _single_class(rows) is not None:
        return None
    context.progress(f"compare: as fitted without {len(rows):,} labelled rows")
    answers = {
        arm: model_answers(context, work, version, rows, tested=tested.get(arm))[0] for arm, version in versions.items()
    }
    served = model_answers(context, work, candidate, rows)[0]
    first, second = answers[CHAMPION], answers[CANDIDATE]
    if first is None or second is None or served is None:
        return None
    refit = _pair_rows(rows, {CHAMPION: second, CANDIDATE: served}, work, seen_by=(CANDIDATE,), usual=None)
    fault = paired_evaluation(refit)
    usual = _usual_loss(project, versions[CHAMPION], rows)
    evaluation = paired_evaluation(
        _pair_rows(rows, {CHAMPION: first, CANDIDATE: second}, work, seen_by=(), usual=usual)
    )
    if fault is None or evaluation is None or refit_fault(fault) is not None:
        return None
    note = "the versions were compared on labelled rows of the past as fitted without these rows"
    return evaluation, (note,)


def _tested_models(project: Project, versions: Versions) -> tuple[Tested, tuple[str, ...]]:
    """The tested models of the arms whose served model knows all rows, and notes; none if only one is comparable."""
    candidate = find_record(project, versions[CANDIDATE])
    model, notes = tested_model(project, versions[CANDIDATE])
    if candidate is None or model is None:
        return {}, notes
    models = {CANDIDATE: model}
    champion = find_record(project, versions[CHAMPION])
    if champion is not None and champion.fitted.final is not None:
        other, notes = comparable_tested(project, versions[CHAMPION], candidate.fitted.split)
        if other is None:
            return {}, notes
        models[CHAMPION] = other
    return models, ()


def _single_class(rows: TrainingSet) -> str | None:
    """The class that nearly all labels name: its rows do not stand for the others. None: several are named."""
    if rows.task == "regression":
        return None
    counts = np.bincount(rows.target.astype(np.int64), minlength=len(rows.classes))
    most = int(counts.argmax())
    return rows.classes[most] if len(rows) - counts[most] < _FEWEST_OF_A_CLASS else None


def _rows(
    context: Context, work: TrainingWork, rows: TrainingSet, versions: Versions, policy: PairedPolicy, *, tested: Tested
) -> tuple[TrainingSet, tuple[str, ...]]:
    """The newest labelled rows that none, else the fewest, of the versions learned from, and notes which these are."""
    from cumulant.training.splits import ripened

    if rows.at is None:
        return _test_rows(context, work, rows, versions, most=policy.rows, tested=tested)
    rows = rows.take(ripened(rows, horizon_of(rows, None)))
    assert rows.at is not None
    if not len(rows):
        return rows, ()
    recent = rows.at > rows.at.max() - micros(policy.span)
    rows = rows.take(np.flatnonzero(recent)[np.argsort(rows.at[recent], kind="stable")])
    assert rows.at is not None
    ends = {arm: _learned_to(context.project, version, tested=arm in tested) for arm, version in versions.items()}
    unlearned = {arm: rows.at > end for arm, end in ends.items()}
    newest = _least_learned(unlearned)[-policy.rows :]
    return rows.take(newest), _learned_by(unlearned, newest)


def _test_rows(
    context: Context, work: TrainingWork, rows: TrainingSet, versions: Versions, *, most: int, tested: Tested
) -> tuple[TrainingSet, tuple[str, ...]]:
    """The same of test rows without a time, by each version's own split."""
    from cumulant.training.splits import split

    test = split(rows, work.evaluation, seed=work.training.seed).test
    unlearned = {}
    for arm, version in versions.items():
        known, _ = unseen_rows(context, work, test, version, tested=arm in tested)
        unlearned[arm] = np.zeros(len(test), dtype=bool) if known is None else known
    chosen = test.take(_least_learned(unlearned)).at_most(most)
    return chosen, _learned_by(unlearned, np.flatnonzero(np.isin(test.rows, chosen.rows)))


def _least_learned(unlearned: Unlearned) -> NDArray[np.intp]:
    """Places of the rows that none of the versions learned from; where these are too few, that the fewest did."""
    chosen = np.zeros(0, dtype=np.intp)
    for wanted in ((CHAMPION, CANDIDATE), (CANDIDATE,), (CHAMPION,), ()):
        every = np.ones(len(unlearned[CANDIDATE]), dtype=bool)
        chosen = np.flatnonzero(np.logical_and.reduce([every, *(unlearned[arm] for arm in wanted)]))
        if len(chosen) >= _FEWEST:
            break
    return chosen


def _learned_by(unlearned: Unlearned, places: NDArray[np.intp]) -> tuple[str, ...]:
    return tuple(arm for arm, known in unlearned.items() if not known[places].all())


def _learned_to(project: Project, version: ModelVersion, *, tested: bool) -> int:
    """Microseconds since 1970 UTC of the last row that a version, or its tested model, can have learned from."""
    record = find_record(project, version)
    fitted = None if record is None else record.fitted
    end = None if fitted is None else fitted.split.train_to if tested else fitted.learned_to
    return to_micros(end or version.created)


def _pair_rows(
    rows: TrainingSet,
    answers: Mapping[str, ModelAnswers],
    work: TrainingWork,
    *,
    seen_by: tuple[str, ...],
    usual: float | None,
) -> PairedRows:
    scores, losses, decisions = {}, {}, {}
    for arm, answered in answers.items():
        scores[arm], losses[arm], decisions[arm] = _score_rows(rows, answered)
    return PairedRows(
        champion=scores[CHAMPION],
        candidate=scores[CANDIDATE],
        champion_loss=losses[CHAMPION],
        candidate_loss=losses[CANDIDATE],
        baseline_loss=_constant_loss(rows),
        usual_loss=usual,
        loss={"binary": "brier", "multiclass": "zero_one", "regression": "squared_error"}[rows.task],
        differs=None if rows.task == "regression" else decisions[CHAMPION] != decisions[CANDIDATE],
        at=rows.at,
        segments=_segments(rows, personal_features(work.task.plan)),
        seen_by=seen_by,
    )


def _score_rows(
    rows: TrainingSet, answers: ModelAnswers
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    values = answers.values
    if rows.task == "multiclass":
        best = values.argmax(axis=1)
        place = np.array([rows.classes.index(name) if name in rows.classes else -1 for name in answers.classes])
        decided = place[best].astype(np.float64)
        scores = values.max(axis=1)
        return scores, np.where(np.isfinite(scores), decided != rows.target, np.nan), decided
    decided = values >= (0.5 if answers.threshold is None else answers.threshold)
    return values, (values - rows.target) ** 2, decided.astype(np.float64)


def _usual_loss(project: Project, champion: ModelVersion, rows: TrainingSet) -> float | None:
    record = find_record(project, champion)
    values = {} if record is None else record.judgement.evaluation.values()
    if rows.task == "binary":
        return values.get("brier")
    if rows.task == "multiclass":
        return 1 - values["accuracy"] if "accuracy" in values else None
    return values["rmse"] ** 2 if "rmse" in values else None


def _constant_loss(rows: TrainingSet) -> float:
    if rows.task == "multiclass":
        return 1 - float(np.bincount(rows.target.astype(np.int64)).max()) / len(rows)
    return float(rows.target.var())


def _segments(rows: TrainingSet, personal: frozenset[str]) -> dict[str, NDArray[np.str_]]:
    columns = [column for column in rows.features.get_columns() if column.name not in personal]
    return {column.name: value_texts(column) for column in columns}


def value_texts(column: pl.Series) -> NDArray[np.str_]:
    """Each row's value of a feature as a text [n]: the most frequent values, or ranges of a number."""
    import polars as pl

    if column.dtype.is_numeric() and column.n_unique() > _VALUES:
        values = column.cast(pl.Float64).to_numpy()
        finite = values[np.isfinite(values)]
        edges = np.unique(np.quantile(finite, np.linspace(0, 1, _RANGES + 1)[1:-1])) if len(finite) else np.zeros(0)
        names = np.array(
            [f"below {edge:g}" for edge in edges] + [f"{edges[-1]:g} and above" if len(edges) else "any", "missing"]
        )
        place = np.where(np.isfinite(values), np.searchsorted(edges, values, side="right"), len(edges) + 1)
        return np.asarray(names[place])
    texts = column.cast(pl.String).fill_null("missing")
    counts = texts.value_counts(sort=True)
    frequent = counts[texts.name][:_VALUES]
    return np.asarray(
        pl.select(pl.when(texts.is_in(frequent.to_list())).then(texts).otherwise(pl.lit("any other")))
        .to_series()
        .to_list(),
        dtype=np.str_,
    )
