"""Events of the package `outcomes`: figures and references, never labels."""

from __future__ import annotations

from typing import ClassVar

from cumulant.core.events import Fact


class LabelsIngested(Fact, frozen=True, kw_only=True):
    """Labels were ingested; `problems` counts rows that cannot be used, by reason."""

    kind: ClassVar[str] = "labels.ingested"

    source: str
    content: str
    rows: int
    problems: dict[str, int]


class PredictionsLabelled(Fact, frozen=True, kw_only=True):
    """Predictions got their first label; of mirrored requests, how many pairs were found and how many got one."""

    kind: ClassVar[str] = "labels.joined"

    labelled: int
    pairs: int
    graded: int


class PredictionsImported(Fact, frozen=True, kw_only=True):
    """Predictions that were logged elsewhere came into the prediction log."""

    kind: ClassVar[str] = "predictions.imported"

    source: str
    content: str
    rows: int
    refused: int
