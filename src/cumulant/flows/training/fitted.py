"""What a search produced, as its step and the record of a version hold it."""

from __future__ import annotations

from datetime import datetime

import msgspec

from cumulant.core.refs import ObjectRef
from cumulant.flows.training.split_rule import SplitRule
from cumulant.training.records import TrainingSummary, TrialRecord


class ChosenCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows `training.rows` chose, with and without a label, and `of` how many."""

    rows: int
    of: int


class SplitSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows were learned from and which are the test; `unlabelled` rows have no label (yet)."""

    how: str
    train: int
    test: int
    unlabelled: int
    left_out: int
    #: of the rows learned from, those whose label came from the review queue
    reviewed: int = 0
    train_from: datetime | None = None
    train_to: datetime | None = None
    test_from: datetime | None = None
    test_to: datetime | None = None
    #: of rows without times: by what they were split
    rule: SplitRule | None = None
    #: the labelled rows of each class, in training and test together
    classes: dict[str, int] = {}
    #: None where all rows were trained and tested on
    chosen: ChosenCount | None = None


class FinalFit(msgspec.Struct, frozen=True, kw_only=True):
    """The chosen configuration fitted on all `rows`, up to the moment `learned_to`; None where rows have no time."""

    model: ObjectRef
    rows: int
    learned_to: datetime | None = None


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """What the search left: the stored model and baseline, the summary and every trial."""

    model: ObjectRef
    naive: ObjectRef
    summary: TrainingSummary
    trials: tuple[TrialRecord, ...]
    split: SplitSummary
    #: the model that is served, where it is not `model`: that of `training.final_fit: all`
    final: FinalFit | None = None
    reused: bool = False

    @property
    def served(self) -> ObjectRef:
        """The model that is packaged."""
        return self.model if self.final is None else self.final.model

    @property
    def rows(self) -> int:
        """How many rows the served model learned from."""
        return self.summary.rows if self.final is None else self.final.rows

    @property
    def learned_to(self) -> datetime | None:
        """The moment of the last row that the served model learned from."""
        return self.split.train_to if self.final is None else self.final.learned_to

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the training."""
        if self.final is None:
            return self.summary.notes
        chosen = "" if self.split.chosen is None else "chosen "
        note = (
            f"the model learned from all {self.final.rows:,} {chosen}rows, those of the test included: the test figures"
            f" are of the same configuration fitted on the {self.split.train:,} training rows, not of this model"
        )
        return (*self.summary.notes, note)
