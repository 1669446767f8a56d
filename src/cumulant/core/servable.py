"""The servable: one folder that holds a model ready to answer, described by `servable.json`."""

from __future__ import annotations

from typing import Literal

import msgspec

from cumulant.core.plan import FeaturePlan

FORMAT = "cumulant.servable/1"
Task = Literal["binary", "multiclass", "regression"]
#: why a request does not carry a column: known only later, what is predicted, or nothing reads it
Unread = Literal["late", "target", "unused"]


class Input(msgspec.Struct, frozen=True):
    """One column of the model's float32 matrix, made from one feature.

    `number`: the value, missing as NaN. `flag`: 0 or 1, missing as NaN. `category`: the position of the
    value in `categories`; unseen and missing values as NaN.
    """

    feature: str
    kind: Literal["number", "flag", "category"]
    categories: tuple[str, ...] = ()
    #: subtracted in float64 before the cast, so that large magnitudes (epoch seconds) keep their digits
    center: float = 0.0


class Calibration(msgspec.Struct, frozen=True):
    """Applied to the model's output p. `sigmoid`: 1/(1+exp(-(a*logit(p)+b))). `none`: p."""

    kind: Literal["none", "sigmoid"] = "none"
    a: float = 1.0
    b: float = 0.0


class Parity(msgspec.Struct, frozen=True):
    """How the packaged model answered against the trained one, on rows on both sides of the threshold."""

    rows: int
    max_difference: float
    flips: int
    tolerance: float


class Servable(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `servable.json`. Paths are relative to the folder."""

    format: str = FORMAT
    name: str
    version: str = ""
    task: Task
    model: str = "model.onnx"
    inputs: tuple[Input, ...]
    plan: FeaturePlan
    #: class labels in the order of the model's outputs; empty for regression
    classes: tuple[str, ...] = ()
    #: the target was a number, whose classes are whole: predictions are numbers, not their texts
    whole: bool = False
    #: columns of the training source that a request does not carry, and why; a row that has them is answered
    unread: dict[str, Unread] = {}
    calibration: Calibration = Calibration()
    #: binary: predict true at or above it
    threshold: float | None = None
    parity: Parity | None = None
    #: what made it: snapshot, run, code, settings, environment (hashes and names only)
    lineage: dict[str, str] = {}
    #: files of the folder and their SHA-256
    files: dict[str, str] = {}
    example: dict[str, str | int | float | bool | None] = {}


class Answer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One row's answer."""

    prediction: str | int | float | bool
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    #: seconds between the prediction's moment and the newest stored state used; null without state
    state_age: float | None = None
