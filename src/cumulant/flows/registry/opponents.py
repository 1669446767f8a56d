"""The versions that a candidate is compared with: the champion, and an earlier one whose margins still hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cumulant.core.errors import NotFoundError
from cumulant.flows.registry.champion_scores import ModelAnswers, model_answers
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.training.tested_model import comparable_tested
from cumulant.flows.training.unseen_rows import LEAST_UNSEEN, unseen_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.training.fitted import SplitSummary
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project
    from cumulant.training.dataset import TrainingSet
    from cumulant.training.records import Verdict


@dataclass(frozen=True, kw_only=True)
class Opponent:
    """A version's answers to the test rows; None, and a `reason`, where there are too few rows to compare on.

    unseen: [n] the test rows that it did not learn from.
    """

    version: ModelVersion
    answers: ModelAnswers | None
    unseen: NDArray[np.bool_] | None = None
    reason: str = ""

    def on_unseen(self, test: TrainingSet) -> tuple[ModelAnswers, TrainingSet]:
        """Its answers to the test rows that it did not learn from, and these rows."""
        assert self.answers is not None
        if self.unseen is None or self.unseen.all():
            return self.answers, test
        answers = ModelAnswers(self.answers.values[self.unseen], self.answers.threshold, self.answers.importance)
        return answers, test.take(self.unseen)


@dataclass(frozen=True, kw_only=True)
class Opponents:
    """champion: None where there is none, or none that answers the same question. before: an earlier champion that the
    present one is not shown to be better than.
    """

    champion: Opponent | None = None
    before: Opponent | None = None

    def margins_from(self, verdict: Verdict, main: str) -> str | None:
        """The version that margins are held against if the candidate becomes the champion; None: the candidate.

        That is the champion, or the one before it, until one is shown to be better in the metric `main`.
        """
        reference = self.before or self.champion
        if reference is None or not verdict.passed:
            return None
        against = "champion" if self.before is None else "champion_before"
        words = [rule.word for rule in verdict.rules if rule.against == against and rule.metric == main]
        return None if "better" in words else reference.version.version


def margin_reference(project: Project, champion: ModelVersion) -> ModelVersion | None:
    """The earlier champion that margins are held against beside `champion`; None where there is none any more."""
    record = find_record(project, champion)
    number = None if record is None else record.judgement.margins_from
    if number is None:
        return None
    try:
        return project.registry().resolve(f"{champion.name}/{number}")
    except NotFoundError:  # it was deleted since
        return None


def opponents_of(
    context: Context,
    work: TrainingWork,
    champion: ModelVersion | None,
    before: ModelVersion | None,
    test: TrainingSet,
    *,
    refitted: SplitSummary | None,
) -> tuple[Opponents, tuple[str, ...]]:
    """The opponents' answers to the test rows, and notes. `refitted`: the split of the candidate, where its
    configuration is fitted on all rows after the test; None where it is served as tested.
    """
    if champion is None:
        return Opponents(), ()
    first, notes = _opponent(context, work, champion, test, refitted)
    if first is None or before is None:
        return Opponents(champion=first), notes
    second, more = _opponent(context, work, before, test, refitted)
    usable = second if second is not None and second.answers is not None else None
    return Opponents(champion=first, before=usable), (*notes, *more)


def _opponent(
    context: Context, work: TrainingWork, version: ModelVersion, test: TrainingSet, refitted: SplitSummary | None
) -> tuple[Opponent | None, tuple[str, ...]]:
    known, reason = unseen_rows(context, work, test, version)
    tested, doubts = None, tuple[str, ...]()
    if known is None or not known.all():
        tested, doubts = comparable_tested(context.project, version, refitted)
        if tested is not None:
            known, reason = unseen_rows(context, work, test, version, tested=True)
    answers, notes = model_answers(context, work, version, test, tested=tested)
    notes = (*doubts, *notes)
    if answers is None:
        return None, notes
    if tested is not None:
        notes = (*notes, f"{version.uri} and this model are compared as fitted without their test rows")
    if known is None:
        return Opponent(version=version, answers=None, reason=reason), notes
    count = int(known.sum())
    if count < LEAST_UNSEEN:
        reason = f"{version.uri} learned from all but {count} of the {len(test):,} test rows"
        return Opponent(version=version, answers=None, unseen=known, reason=reason), notes
    if count < len(test):
        notes = (*notes, f"compared with {version.uri} on the {count:,} test rows that it did not learn from")
    return Opponent(version=version, answers=answers, unseen=known), notes
