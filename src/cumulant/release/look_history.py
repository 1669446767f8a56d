"""The looks of a release as they were counted: what each metric's evidence was, for charts and audits.

They are recorded in the transaction that stores the decision of the same look (`evidence.look_recording`), and never
computed again.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class MetricLook(msgspec.Struct, frozen=True, kw_only=True):
    """One metric at one look. `harm` and `fine` are logarithms of e-values, as in `Board`.

    `seconds`: active seconds since the release began; `low` and `high`: the interval of the difference, where the
    metric has one; `harmful` and `acceptable`: the verdicts that the decision of the look read.
    """

    at: datetime
    seconds: float
    step: int
    #: requests or pairs of each arm that counted
    champion_samples: int
    candidate_samples: int
    champion: float | None
    candidate: float | None
    low: float | None
    high: float | None
    harm: float
    fine: float
    harmful: bool
    acceptable: bool


class MetricHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The looks of one metric that decides, the oldest first, with its bars and its margin (`Board`)."""

    metric: str
    unit: str
    margin: float
    required: bool
    harm_bar: float | None
    fine_bar: float
    looks: tuple[MetricLook, ...] = ()


class LookHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The looks of a release; `steps`: the names of its steps, which looks have by number."""

    release: str
    steps: tuple[str, ...]
    alpha: float
    metrics: dict[str, MetricHistory] = {}
