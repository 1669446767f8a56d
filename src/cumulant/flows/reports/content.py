"""The content of a report as plain values, the only input of every rendering."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Interval(msgspec.Struct, frozen=True):
    """A measured figure with the ends of its confidence interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


class FileReport(msgspec.Struct, frozen=True):
    name: str
    sha256: str
    bytes: int
    rows: int | None


class CheckReport(msgspec.Struct, frozen=True):
    """One rule of a source. `failed` rows do not keep it: those of a rule on rows are in quarantine; a rule on the
    whole table (`quarantines` is false) may allow some, and holds where `passed`.
    """

    column: str | None
    text: str
    failed: int
    share: float
    passed: bool = True
    quarantines: bool = True


class SourceReport(msgspec.Struct, frozen=True, kw_only=True):
    """One source's accepted snapshot. `rows_in` = passed + quarantined + dropped by `prepare`."""

    name: str
    snapshot: str
    accepted: datetime | None = None
    rows_in: int
    rows_passed: int
    rows_quarantined: int
    rows_dropped: int = 0
    bytes: int = 0
    csv_bytes: int = 0
    event_time: str | None = None
    key: tuple[str, ...] = ()
    files: tuple[FileReport, ...] = ()
    checks: tuple[CheckReport, ...] = ()
    changes: tuple[str, ...] = ()
    shifts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class FeatureReport(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    dtype: str
    kind: str
    definition: str
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    #: the feature's part of all importance, where the model provides it
    importance: float | None = None


class TrialReport(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    trainer: str
    state: str
    score: float | None = None
    seconds: float | None = None
    #: whether the time ended its fits before they were done
    shortened: bool = False
    #: whether scores chose its parameters
    tuned: bool = False
    settings: dict[str, str] = {}


class FoldReport(msgspec.Struct, frozen=True, kw_only=True):
    """A fold of the search, or the final split (`name` is "test"). Times where the split is by time."""

    name: str
    train_rows: int
    held_rows: int
    train_from: datetime | None = None
    train_to: datetime | None = None
    held_from: datetime | None = None
    held_to: datetime | None = None


class BlendReport(msgspec.Struct, frozen=True, kw_only=True):
    """A weighted average of trainers that was tried: `taken` where it is the model. `gain`: over the trainer `best`
    alone, out of fold.
    """

    taken: bool
    weights: dict[str, float]
    gain: Interval | None
    best: str

    @property
    def text(self) -> str:
        shown = [f"{trainer} ({weight:.2f})" for trainer, weight in self.weights.items()]
        return f"a blend of {', '.join(shown[:-1])} and {shown[-1]}"


class TrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    target: str = ""
    predict_at: str = ""
    task: str = ""
    rows: int = 0
    unlabelled: int = 0
    test_rows: int = 0
    #: the labelled rows of each class, in training and test together
    classes: dict[str, int] = {}
    seconds: float | None = None
    score_name: str = ""
    higher_is_better: bool = True
    trials: tuple[TrialReport, ...] = ()
    best: int | None = None
    #: the chosen trainer, its score and how many of its trials are averaged; each trainer's best score
    trainer: str = ""
    score: float | None = None
    averaged: int = 1
    scores: dict[str, float] = {}
    blend: BlendReport | None = None
    folds: tuple[FoldReport, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class MetricReport(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of the model on the test rows, beside that of the naive baseline."""

    name: str
    model: Interval
    naive: Interval | None = None
    higher_is_better: bool = True


class SliceReport(msgspec.Struct, frozen=True, kw_only=True):
    column: str
    value: str
    rows: int
    metrics: dict[str, Interval]


class Point(msgspec.Struct, frozen=True):
    """A point of a curve; `weight` counts the rows behind it."""

    x: float
    y: float
    weight: float = 0.0


class CurveReport(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    points: tuple[Point, ...]


class RuleReport(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of the gate: its text, the measured values, and the verdict word.

    `against` is `champion`, `champion_before`, `naive` or `limit`; `difference` is above 0 where the model is better,
    or inside its limit.
    """

    metric: str
    text: str
    against: str
    word: str
    passed: bool
    difference: Interval | None = None
    value: Interval | None = None


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    verdict: str
    passed: bool
    reference: str
    rules: tuple[RuleReport, ...] = ()
    warnings: tuple[str, ...] = ()


class ParityReport(msgspec.Struct, frozen=True):
    rows: int
    max_difference: float
    flips: int
    tolerance: float


class FieldReport(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    dtype: str
    nullable: bool
    personal: bool = False
    example: str = ""


class ServingReport(msgspec.Struct, frozen=True, kw_only=True):
    threshold: float | None = None
    threshold_text: str = ""
    classes: tuple[str, ...] = ()
    parity: ParityReport | None = None
    request: tuple[FieldReport, ...] = ()
    curl: str = ""


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the run. `seconds` that it took in it: 0 where it was `reused`."""

    name: str
    seconds: float
    reused: bool


class EventReport(msgspec.Struct, frozen=True, kw_only=True):
    seq: int
    time: datetime
    actor: str
    kind: str
    text: str


class ReportData(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on one page. Sections that a run did not reach are absent, and the page says so."""

    name: str
    subject: str
    generated: datetime
    cumulant: str
    run: str | None = None
    version: str | None = None
    uri: str | None = None
    aliases: tuple[str, ...] = ()
    created: datetime | None = None
    owner: str = ""
    purpose: str = ""
    risk: str = ""
    sources: tuple[SourceReport, ...] = ()
    features: tuple[FeatureReport, ...] = ()
    training: TrainingReport | None = None
    metrics: tuple[MetricReport, ...] = ()
    #: whether the figures are of the tested model: this one's configuration, fitted without the test rows
    of_tested: bool = False
    #: what was drawn whole for the intervals (day, row, an entity), and how many of them there were
    cluster: str = ""
    clusters: int = 0
    #: of the test rows, where the task is binary: the score from which a row is an alert, and alerts a day
    threshold: float | None = None
    alerts_a_day: float | None = None
    slices: tuple[SliceReport, ...] = ()
    curves: tuple[CurveReport, ...] = ()
    gate: GateReport | None = None
    serving: ServingReport | None = None
    lineage: dict[str, str] = {}
    environment: dict[str, str] = {}
    #: of the run, in order, and the seconds that it took as a whole
    steps: tuple[StepReport, ...] = ()
    seconds: float | None = None
    events: tuple[EventReport, ...] = ()
