"""The alert rules in force: built in, or of the project file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, get_args

import msgspec

from cumulant.core.units import Rate

Level = Literal["info", "warning", "critical"]
LEVELS: tuple[Level, ...] = get_args(Level)

#: default rules: harm is urgent, a change that may be harmless is not
BUILT_IN: Mapping[str, Level] = {
    "data_fault": "critical",
    "feed": "critical",
    "feature_mismatch": "critical",
    "feature_job": "critical",
    "loss": "critical",
    "objective": "warning",
    "freshness": "warning",
    "concept": "warning",
    "prior": "warning",
    "outcome": "warning",
    "quality": "warning",
    "estimated_loss": "warning",
    "retraining": "warning",
    "volume": "warning",
    "covariate": "info",
}
#: rules that resolve sooner than others: the windows of an objective have smoothed it already, a job runs or does not
RESOLVE_AFTER: Mapping[str, str] = {"objective": "5m", "freshness": "5m", "feature_job": "1m"}
#: of undeclared rules
OTHERS: Level = "warning"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds; `level` None: it is off."""

    level: Level | None
    pending_for: float
    resolve_after: float


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds; `budget`: notifications a period."""

    rules: dict[str, Rule]
    others: Rule
    budget: Rate
    remind: float
    reminders: int

    def rule(self, name: str) -> Rule:
        """The rule of that name; an undeclared one is a warning."""
        return self.rules.get(name, self.others)

    def period_of(self, at: datetime) -> str:
        """The name of the budget's period that holds `at`; later periods have greater names."""
        return self.budget.period_of(at)


def above(level: Level, other: Level | None) -> bool:
    """Whether `level` matters more than `other`; anything does more than None."""
    return other is None or LEVELS.index(level) > LEVELS.index(other)


def highest(*levels: Level | None) -> Level:
    """The highest level; `info` for none."""
    return max((level for level in levels if level is not None), key=LEVELS.index, default="info")
