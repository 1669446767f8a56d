"""What a search, an evaluation and the gate leave behind, as values for JSON."""

from __future__ import annotations

from typing import Literal

import msgspec

from cumulant.core.servable import Calibration, Task
from cumulant.statistics.records import LEVEL, Estimate
from cumulant.statistics.words import Word
from cumulant.training.spec import SEARCHED, Parameter

#: the name of a blend where that of a trainer stands
BLEND = "blend"

State = Literal["complete", "pruned", "cut"]
#: champion_before: an earlier champion, which small losses of its successors may not add up against
Against = Literal["champion", "champion_before", "naive", "limit"]


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """Columns of equal length by name, and what they mean."""

    text: str
    columns: dict[str, list[float]]


class TrialRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One trial: a trainer with parameters, judged fold by fold.

    `scores` are values of the search's metric, one a fold that was judged; `score` their mean. `pruned`: given up
    after a fold, being worse than most. `cut`: time ran out; `score` is then None. `shortened`: it had to finish, and
    time ended its fits before they were done. `tuned`: scores of earlier trials, or of an earlier search, chose its
    parameters, so that its own scores on much the same rows are better than on new ones.
    """

    number: int
    trainer: str
    params: dict[str, Parameter] = {}
    tuned: bool = False
    state: State = "complete"
    score: float | None = None
    scores: tuple[float, ...] = ()
    #: boosting rounds of each fold; 0 for trainers without rounds
    rounds: tuple[int, ...] = ()
    seconds: float = 0.0
    shortened: bool = False


class FoldSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows a fold learned from (after sampling) and judged; `text` says which."""

    text: str
    train: int
    validate: int


class FittedBooster(msgspec.Struct, frozen=True, kw_only=True):
    """One booster of the model as it was fitted: by the parameters of `trial`, with the seed of its `place` among those
    that were wanted (the clock may have left some out), for `rounds` on `rows` rows.
    """

    trial: int
    place: int
    rounds: int
    rows: int


class BlendMember(msgspec.Struct, frozen=True, kw_only=True):
    """One trainer in a blend: its weight, its own score, parameters, trials and boosters, as in `TrainingSummary`."""

    trainer: str
    weight: float
    score: float
    params: dict[str, Parameter]
    chosen: tuple[int, ...]
    boosters: tuple[FittedBooster, ...] = ()


class BlendSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A blend that was tried; `taken` where it is the model. `gain` is over the best trainer alone (`best`), above 0
    better, among untuned trials or among all, and `score` is out of fold too, by weights that were fitted on other
    folds.
    """

    taken: bool
    members: tuple[BlendMember, ...]
    score: float
    gain: Estimate
    best: str


class TrainingSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What was searched and chosen. Scores are out-of-fold means of `metric`."""

    task: Task
    classes: tuple[str, ...]
    metric: str
    trainer: str
    score: float
    #: trainer -> its best score
    scores: dict[str, float]
    rows: int
    features: int
    folds: tuple[FoldSummary, ...]
    #: sets of parameters of searched trainers that were tried; records of before count the other trainers too
    trials: int
    best_trial: int
    params: dict[str, Parameter]
    #: boosters averaged in the model; 1 for other kinds
    members: int = 1
    #: trials whose out-of-fold answers were averaged to calibrate and to decide; empty in older records
    chosen: tuple[int, ...] = ()
    #: the boosters of the model; empty for other kinds
    boosters: tuple[FittedBooster, ...] = ()
    #: the blend that was tried; where it is the model, `trainer` is "blend" and `params` are empty
    blend: BlendSummary | None = None
    calibration: Calibration = Calibration()
    threshold: float | None = None
    threshold_text: str = ""
    importance: dict[str, float] = {}
    notes: tuple[str, ...] = ()
    #: how many trials of searched trainers were wanted, and what ended them; the clock's choice is another elsewhere
    trials_wanted: int = 0
    ended_by: Literal["trials", "time"] = "trials"
    #: what a person should not overlook, and what to write in the project file about it
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def parts(self) -> tuple[BlendMember, ...]:
        """The members of the blend that is the model, the largest weight first; empty where one trainer is."""
        return self.blend.members if self.blend is not None and self.blend.taken else ()

    @property
    def made_by(self) -> str:
        """`lightgbm`, or `blend of lightgbm (0.65) and linear (0.35)`."""
        shown = [f"{part.trainer} ({part.weight:.2f})" for part in self.parts]
        return f"{self.trainer} of {', '.join(shown[:-1])} and {shown[-1]}" if shown else self.trainer

    @property
    def heaviest(self) -> str:
        """The trainer, of a blend the one of the largest weight among those whose parameters are searched; where none
        is, among all.
        """
        names = [part.trainer for part in self.parts] or [self.trainer]
        return next((name for name in names if name in SEARCHED), names[0])

    def params_of(self, trainer: str) -> dict[str, Parameter] | None:
        """The parameters of `trainer` in the model; None where it has no part in it."""
        if trainer == self.trainer:
            return self.params
        return next((part.params for part in self.parts if part.trainer == trainer), None)


class SliceResult(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of the rows where `column` is `value`; empty metrics where they are too few."""

    column: str
    value: str
    rows: int
    metrics: dict[str, Estimate] = {}


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """How a model does on `rows` rows. Intervals are over `clusters` clusters of kind `cluster`."""

    task: Task
    rows: int
    #: share of positives (binary)
    positives: float | None = None
    begin: str | None = None
    end: str | None = None
    cluster: str
    clusters: int
    threshold: float | None = None
    #: labelled rows at or above the threshold (binary), and the days that all rows fill; None in older records
    alerts: float | None = None
    days: float | None = None
    metrics: dict[str, Estimate]
    slices: tuple[SliceResult, ...] = ()
    curves: dict[str, Curve] = {}
    importance: dict[str, float] = {}
    notes: tuple[str, ...] = ()

    def values(self) -> dict[str, float]:
        """The metrics that are defined, as plain numbers."""
        return {name: estimate.value for name, estimate in self.metrics.items() if estimate.value is not None}


class RuleVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One rule's verdict. `difference` is oriented: above 0 the candidate is better than reference or limit."""

    metric: str
    rule: str
    against: Against
    word: Word
    passed: bool
    candidate: Estimate
    reference: Estimate | None = None
    limit: float | None = None
    difference: Estimate
    text: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's answer: `passed` where every rule passed. `word` tells the metric searched, against the champion
    where there is one, else against naive. `warnings`: what the rules do not measure, such as a model that predicts one
    class alone. `level`: of the intervals of differences.
    """

    passed: bool
    word: Word
    rules: tuple[RuleVerdict, ...]
    text: str
    warnings: tuple[str, ...] = ()
    level: float = LEVEL
