"""The search for a model: trainers against each other on the same folds, parameters of boosters by Optuna."""

from __future__ import annotations

import math
import statistics as averages
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from cumulant.core.ids import digest
from cumulant.core.progress import Progress, silent
from cumulant.core.system.memory import release_free_memory
from cumulant.training.dataset import TrainingSet
from cumulant.training.events import FoldFinished
from cumulant.training.model import FittedModel
from cumulant.training.payloads.widened import Widened
from cumulant.training.policy import TrainingPolicy
from cumulant.training.records import TrainingSummary, TrialRecord
from cumulant.training.search import duplicates, proposals
from cumulant.training.search.blend import Candidates, blend, blendable
from cumulant.training.search.budget import SearchBudget, clock_notes, clock_warnings, longest
from cumulant.training.search.choices import BlendChoice, ModelChoice, best_of, ranking, untuned
from cumulant.training.search.cross_validation import Outcome, prepare_folds
from cumulant.training.search.final_model import Finisher, final_rounds
from cumulant.training.search.search_metric import searched_metric
from cumulant.training.search.trial_journal import CopiedFolder, TrialJournal
from cumulant.training.spec import BUILT_IN, Parameter
from cumulant.training.trainers import lightgbm_trainer
from cumulant.training.trainers.quiet import one_thread_a_product, quiet
from cumulant.training.trainers.trainer import Searched, Trainer
from cumulant.training.trainers.trainer_lookup import make_trainer


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """best: the chosen model, fitted on all training rows. naive: the answer without features.
    trials: every finished trial in order. summary: what was done, as values for JSON.
    """

    best: FittedModel
    naive: FittedModel
    trials: tuple[TrialRecord, ...]
    summary: TrainingSummary


def search(
    rows: TrainingSet,
    spec: TrainingPolicy,
    *,
    root: Path | None = None,
    scratch: Path | CopiedFolder | None = None,
    champion: Mapping[str, Parameter] | None = None,
    progress: Progress = silent,
    on_trial: Callable[[TrialRecord], None] | None = None,
    on_fold: Callable[[FoldFinished], None] | None = None,
) -> SearchResult:
    """Find, fit, calibrate and decide on `rows` (test rows are set aside before: `split`).

    root: where a user's trainer files are. scratch: a folder of this search alone; a search killed there resumes when
    it is called again, and with `jobs: 1` and no time limit reached it ends as if undisturbed.
    champion: parameters of the present model, tried first. on_trial: called for each trial finished in this call.
    on_fold: called when a fold of a trial ends and others follow, in the thread of that trial: of `jobs` at once.

    Raises:
        UsageError: a metric or trainer that does not exist or does not fit the task.
        DataError: too few rows for folds.
        UserCodeError: a user's trainer raised.
        StorageError: `scratch` cannot be written.
    """
    with ExitStack() as stack:
        folder = scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        own = root or Path()
        study = _Study(
            rows,
            spec,
            root=own,
            folder=folder,
            champion=champion,
            progress=progress,
            on_trial=on_trial,
            on_fold=on_fold,
        )
        del rows  # its features are encoded, and trainers need the memory
        release_free_memory()
        stack.enter_context(study.journal)
        stack.enter_context(one_thread_a_product())
        stack.enter_context(quiet())
        return study.run()


class _Study:
    """One search under way."""

    def __init__(
        self,
        rows: TrainingSet,
        spec: TrainingPolicy,
        *,
        root: Path,
        folder: Path | CopiedFolder,
        champion: Mapping[str, Parameter] | None,
        progress: Progress,
        on_trial: Callable[[TrialRecord], None] | None,
        on_fold: Callable[[FoldFinished], None] | None = None,
    ) -> None:
        self.budget = SearchBudget.of(spec.time)
        self.spec, self.champion = spec, champion
        self.progress, self.on_trial, self.on_fold = progress, on_trial, on_fold
        self.metric = searched_metric(spec, rows)
        # the baseline is always there to be beaten
        self.trainers = {name: make_trainer(name, root) for name in dict.fromkeys(["naive", *spec.trainers])}
        self.folds, self.matrix, self.notes = prepare_folds(rows, spec, self.metric)
        self.rows = rows.without_columns()
        self.problem = self.folds.problem
        self.warnings = duplicates.across(self.folds, self.folds.inputs, timed=rows.at is not None)
        self.journal = TrialJournal(folder, self._identity())
        self.budget.add_spent(sum(record.seconds for record in self.journal.records) / spec.jobs)
        self.fits: dict[str, list[tuple[int, int, float]]] = {}

    def run(self) -> SearchResult:
        single = [trainer_ for trainer_ in self.trainers.values() if not trainer_.searched]
        for number, trainer in enumerate(single):
            self._judge_single(number, trainer)
        searched = [cast("Searched", trainer_) for trainer_ in self.trainers.values() if trainer_.searched]
        for place, trainer in enumerate(searched):
            self.budget.share_with(len(searched) - place - 1)
            self._search(trainer, offset=len(single) + place * self.spec.trials)
            trainer.forget()
        release_free_memory()
        choices = self._choices(self.journal.records)
        tried = self._blend(choices)
        best: ModelChoice | BlendChoice = self._better(choices)
        if tried is not None and tried.better:
            best = tried
        self.progress(f"final fit of {best.name}", 0.95)
        finisher = Finisher(
            self.rows,
            self.matrix,
            self.folds,
            spec=self.spec,
            budget=self.budget,
            fits={name: self._fits(name) for name in self.trainers},
            refit=self.spec.final_fit == "all",
        )
        naive, _ = finisher.model(choices["naive"])
        model, text = finisher.model(best)
        return SearchResult(
            best=model,
            naive=naive,
            trials=tuple(self.journal.records),
            summary=self._summary(model, (best, tried), choices, text, finisher),
        )

    def _judge_single(self, number: int, trainer: Trainer) -> None:
        """Judge a trainer that has nothing to search."""
        if any(record.number == number for record in self.journal.records):
            return
        self.progress(f"trying {trainer.name}")
        params = self.spec.parameters.get(trainer.name, {})
        # the baseline and a user's own trainer are always tried on every fold
        must = trainer.name == "naive" or trainer.name not in BUILT_IN
        outcome = self.folds.run(
            trainer,
            params,
            number=number,
            seconds_left=self.budget.left_for_baselines,
            must_finish=must,
            on_fold=self.on_fold,
        )
        self._finished(outcome)

    def _search(self, trainer: Searched, *, offset: int) -> None:
        done = self._searched(trainer)
        numbers = [
            number for number in range(self.spec.trials) if number not in {record.number - offset for record in done}
        ]
        if numbers:
            self.progress(f"trying {trainer.name}")
        with ThreadPoolExecutor(self.spec.jobs) as pool, self.budget.ends_with():
            running: dict[Future[Outcome], int] = {}
            while numbers or running:
                while numbers and len(running) < self.spec.jobs and self._time_for_more(trainer):
                    number = numbers.pop(0)
                    running[pool.submit(self._trial, trainer, number, offset)] = number
                if not running:
                    return
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    del running[future]
                    self._finished(future.result())
                self._report(trainer)

    def _trial(self, trainer: Searched, number: int, offset: int) -> Outcome:
        finished = self._searched(trainer)
        first, fixed = self._first(trainer), self.spec.parameters.get(trainer.name, {})
        params = proposals.propose(
            number,
            finished=finished,
            first=first,
            space=lambda drawn: trainer.space(drawn, rows=len(self.rows), categories=self._categories),
            larger_is_better=self.metric.larger_is_better,
            seed=self.spec.seed,
        )

        def give_up(scores: Sequence[float]) -> bool:
            return proposals.hopeless(scores, finished, larger_is_better=self.metric.larger_is_better)

        return self.folds.run(
            trainer,
            params | fixed,
            number=offset + number,
            tuned=number >= len(first) or first[number] is self.champion,
            give_up=give_up,
            seconds_left=self.budget.clock_of_trial(
                [record.seconds for record in finished if record.state == "complete"], self.spec.trials - number
            ),
            must_finish=not any(record.state == "complete" for record in finished),
            on_fold=self.on_fold,
        )

    def _finished(self, outcome: Outcome) -> None:
        record = outcome.record
        self.journal.append(record, outcome.answers)
        self.journal.keep(self._needed())
        self.fits.setdefault(record.trainer, []).extend(outcome.fits)
        if self.on_trial is not None:
            self.on_trial(record)

    def _needed(self) -> set[int]:
        """Trials whose answers may be needed: the best few of each trainer, also without each fold, and the untuned."""
        larger, records = self.metric.larger_is_better, self.journal.records
        best = {
            record.number
            for name in self.trainers
            for fold in (None, *self.folds.left_out)
            for record in ranking(records, name, larger_is_better=larger, without=fold)[: self.spec.ensemble]
        }
        return best | {record.number for record in untuned(records)}

    def _searched(self, trainer: Trainer) -> list[TrialRecord]:
        records = [record for record in self.journal.records if record.trainer == trainer.name]
        return sorted(records, key=lambda record: record.number)

    def _time_for_more(self, trainer: Trainer) -> bool:
        """Whether another trial, as long as the usual one, leaves time for the final fit."""
        done = self._searched(trainer)
        complete = [record for record in done if record.state == "complete"]
        if not complete or not self.budget.limited:
            return True
        self._reserve()
        return self.budget.left_for_search() > averages.median(record.seconds for record in done)

    def _reserve(self) -> None:
        """Set time aside for the final fit, and for the one on all rows: of the trainer that takes longest, or of all
        members of a blend.
        """
        fits = 2 if self.spec.final_fit == "all" else 1
        waves = math.ceil(self.spec.ensemble / self.problem.threads)
        seconds = {name: self._final_seconds(name) for name in self.trainers}
        parts = [trainer.name for trainer in self.trainers.values() if self.spec.blend == "auto" and blendable(trainer)]
        most = {name: duration * (waves if self.trainers[name].searched else 1) for name, duration in seconds.items()}
        self.budget.reserve(fits * longest(seconds, parts), at_most=fits * longest(most, parts))

    def _final_seconds(self, name: str) -> float:
        """How long one fit of a trainer on all rows takes; 0 before its first trial has ended."""
        complete = self._complete(name)
        if not complete:
            return 0.0
        rounds = averages.fmean(final_rounds(self.trainers[name], record, self.folds.growth) for record in complete)
        return lightgbm_trainer.expected_seconds(self._fits(name), len(self.rows), round(rounds))

    def _fits(self, name: str) -> list[tuple[int, int, float]]:
        """(rows, rounds, seconds) of the fits of a trainer, those of an earlier process where this one has none."""
        if self.fits.get(name):
            return self.fits[name]
        rows = round(averages.fmean(summary.train for summary in self.folds.summaries))
        return [(rows, sum(record.rounds), record.seconds) for record in self._complete(name)]

    def _complete(self, name: str) -> list[TrialRecord]:
        return [record for record in self.journal.records if record.trainer == name and record.state == "complete"]

    def _first(self, trainer: Searched) -> list[Mapping[str, Parameter]]:
        rare = min(self.rows.rate, 1 - self.rows.rate) if self.rows.task == "binary" else None
        points = trainer.first_points(rows=len(self.rows), rate=rare, categories=self._categories)
        # the champion's parameters are LightGBM's
        known = self.champion is not None and trainer.name == "lightgbm"
        return [cast("Mapping[str, Parameter]", self.champion), *points] if known else list(points)

    @property
    def _categories(self) -> bool:
        return any(input_.kind == "category" for input_ in self.problem.inputs)

    def _choices(self, records: Sequence[TrialRecord], without: int | None = None) -> dict[str, ModelChoice]:
        """The best of each trainer among `records`; `without`: a fold that chooses nothing."""
        journal, most = self.journal, self.spec.ensemble
        choices = {
            name: best_of(trainer, records, journal, self.folds, most=most, without=without)
            for name, trainer in self.trainers.items()
        }
        return {name: choice for name, choice in choices.items() if choice is not None}

    def _better(self, choices: Mapping[str, ModelChoice]) -> ModelChoice:
        sign = 1 if self.metric.larger_is_better else -1
        scored = [choice for name, choice in choices.items() if name != "naive"] or list(choices.values())
        return max(scored, key=lambda choice: sign * choice.score)

    def _blend(self, choices: Mapping[str, ModelChoice]) -> BlendChoice | None:
        """The blend that was tried; the naive answer is no part of it."""
        if self.spec.blend == "off":
            return None
        finished = [record for record in self.journal.records if record.score is not None and record.trainer != "naive"]
        tried = [untuned(finished), *([finished] if any(record.tuned for record in finished) else [])]
        best = [choice for name, choice in choices.items() if name != "naive"]
        return blend(best, [self._candidates(trials) for trials in tried], self.folds, self.rows)

    def _candidates(self, records: Sequence[TrialRecord]) -> Candidates:
        # of one fold at a time: all would take much memory
        crossed = (list(self._choices(records, fold).values()) for fold in self.folds.left_out)
        return Candidates(list(self._choices(records).values()), crossed)

    def _report(self, trainer: Trainer) -> None:
        done = self._searched(trainer)
        complete = ranking(done, trainer.name, larger_is_better=self.metric.larger_is_better)
        best = f", best {self.metric.name.replace('_', ' ')} {complete[0].score:.4f}" if complete else ""
        share = len(done) / self.spec.trials
        self.progress(f"{trainer.name}: trial {len(done)} of {self.spec.trials}{best}", 0.95 * share)

    def _identity(self) -> str:
        """What makes a search this search: its rows, settings and folds."""
        target = digest([self.rows.target.tobytes().hex(), self.matrix.tobytes()[:1_000_000].hex()])
        spec = [self.spec.seed, self.spec.trainers, self.spec.parameters, self.spec.ensemble, self.champion]
        folds = [(fold.text, fold.train, fold.validate) for fold in self.folds.summaries]
        shape = [list(self.matrix.shape), float(np.nansum(self.matrix, dtype=np.float64))]
        inputs = [repr(input_) for input_ in self.problem.inputs]
        counted = list(self.folds.counted) if any(self.folds.counted) else []
        return digest([target, spec, folds, shape, self.metric.name, inputs, *counted])

    def _summary(
        self,
        model: FittedModel,
        chosen: tuple[ModelChoice | BlendChoice, BlendChoice | None],
        choices: Mapping[str, ModelChoice],
        text: str,
        finisher: Finisher,
    ) -> TrainingSummary:
        """`chosen`: what the model is made of, and the blend that was tried."""
        (best, tried), payload, records = chosen, model.payload, self.journal.records
        parts = best.members if isinstance(best, BlendChoice) else (best,)
        trials = tuple(record for part in parts for record in part.members)
        searched = [name for name, trainer in self.trainers.items() if trainer.searched]
        clocked = clock_notes(self.spec.time, records, searched=searched, trials=self.spec.trials)
        hurried = clock_warnings(self.spec.time, records, searched=searched, trials=self.spec.trials)
        return TrainingSummary(
            task=model.task,
            classes=model.classes,
            metric=self.metric.name,
            trainer=model.trainer,
            score=best.score,
            scores={name: choice.score for name, choice in choices.items()},
            rows=len(self.rows),
            features=len(model.inputs),
            folds=self.folds.summaries,
            trials=sum(record.trainer in searched for record in records),
            best_trial=trials[0].number,
            params=model.params,
            members=len(getattr(payload.inner if isinstance(payload, Widened) else payload, "texts", (0,))),
            chosen=tuple(record.number for record in trials),
            boosters=finisher.boosters.get(best.name, ()),
            blend=None if tried is None else tried.summary(finisher.boosters, taken=tried is best),
            calibration=model.calibration,
            threshold=model.threshold,
            threshold_text=text,
            importance=model.importance,
            trials_wanted=self.spec.trials * len(searched),
            ended_by="time" if clocked else "trials",
            notes=(*self.rows.notes, *self.notes, *clocked, *finisher.notes),
            warnings=(*self.rows.warnings, *self.warnings, *hurried, *finisher.warnings),
            seconds=round(self.budget.spent(), 2),
        )
