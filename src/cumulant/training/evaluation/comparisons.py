"""One rule of the gate: a metric against the champion, against the naive baseline, or against a limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from cumulant.statistics import Estimate, Metric, Rows, Word, above_chance, difference, estimate, verdict
from cumulant.statistics.records import LEVEL
from cumulant.training.records import Against, RuleVerdict
from cumulant.training.spec import GateRule

_NAMES: dict[Against, str] = {
    "champion": "champion",
    "champion_before": "the earlier champion",
    "naive": "naive",
    "limit": "limit",
}


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Another version's answers to the test rows.

    rows: its answers; None where it cannot be compared with, and then `reason` says why.
    unseen: [n] the test rows that it did not learn from; None: all of them.
    """

    rows: Rows | None
    unseen: NDArray[np.bool_] | None = None
    reason: str = ""

    def pair(self, candidate: Rows) -> tuple[Rows, Rows] | None:
        """Candidate and rival on the rows that neither learned from; None where there are none."""
        if self.rows is None:
            return None
        if self.unseen is None or bool(self.unseen.all()):
            return candidate, self.rows
        return candidate.where(self.unseen), self.rows.where(self.unseen)


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """The comparisons of one candidate, at one `level` of their intervals."""

    candidate: Rows
    naive: Rows
    level: float = LEVEL
    seed: int = 0

    def against_naive(self, metric: Metric, *, informed: bool = True) -> RuleVerdict:
        """Whether the candidate is better than the naive answer, and with `informed`, than its own answers
        given to other rows.

        Of the calibration error it has only to come near: a constant is all but perfectly calibrated.
        """
        gap = difference(metric, self.candidate, self.naive, level=self.level, seed=self.seed)
        if metric.name == "calibration_error":
            return self._compared(metric, (self.candidate, self.naive), "naive", gap, margin=0.0)
        exchanged = False
        if informed and (gap.value is None or (gap.low is not None and gap.low > 0)):
            chance = above_chance(metric, self.candidate, level=self.level, seed=self.seed)
            if gap.low is None or (chance.low if chance.low is not None else -math.inf) < gap.low:
                gap, exchanged = chance, True
        rule = self._compared(metric, (self.candidate, self.naive), "naive", gap, margin=None)
        if not exchanged or rule.passed:
            return rule
        text = f"{rule.text}; its own answers given to other rows do as well"
        return msgspec.structs.replace(rule, text=text)

    def not_shown_worse_than_naive(self, metric: Metric) -> RuleVerdict:
        """Passes unless the candidate is shown to be worse than the naive answer."""
        gap = difference(metric, self.candidate, self.naive, level=self.level, seed=self.seed)
        rule = self._compared(metric, (self.candidate, self.naive), "naive", gap, margin=0.0)
        return msgspec.structs.replace(rule, rule="not shown to be worse than naive", passed=rule.word != "worse")

    def against_rival(self, metric: Metric, pair: tuple[Rows, Rows], against: Against, margin: float) -> RuleVerdict:
        """Whether the candidate is better than the rival, or worse by no more than `margin`."""
        gap = difference(metric, *pair, level=self.level, seed=self.seed)
        return self._compared(metric, pair, against, gap, margin=margin)

    def without_rows(self, metric: Metric, against: Against, reason: str) -> RuleVerdict:
        """The verdict where there is no row to compare on."""
        rule = f"not worse than {_NAMES[against]} on rows that neither learned from; {reason}"
        return self.refused(metric, rule, against, f"{metric.text}: cannot tell, {reason}")

    def refused(self, metric: Metric, rule: str, against: Against, text: str) -> RuleVerdict:
        """A rule that cannot be decided, and so does not pass."""
        return RuleVerdict(
            metric=metric.name,
            rule=rule,
            against=against,
            word="cannot_tell",
            passed=False,
            candidate=estimate(metric, self.candidate, seed=self.seed),
            difference=Estimate(value=None, level=self.level),
            text=text,
        )

    def within_limit(self, metric: Metric, rule: GateRule) -> RuleVerdict:
        """Whether the value keeps the limit, and its interval does not lie wholly beyond it."""
        limit, at_least = (rule.min, True) if rule.min is not None else (rule.max, False)
        assert limit is not None
        ours = estimate(metric, self.candidate, seed=self.seed)
        gap = _room(ours, limit, at_least=at_least)
        word = verdict(gap.low, gap.high)
        passed = gap.value is not None and gap.value >= 0 and word != "worse"
        wanted = f"{'at least' if at_least else 'at most'} {limit:g}"
        state = "kept" if passed else "broken"
        unsure = ", though its interval reaches beyond" if passed and word not in ("better", "worse") else ""
        return RuleVerdict(
            metric=metric.name,
            rule=wanted,
            against="limit",
            word=word,
            passed=passed,
            candidate=ours,
            limit=limit,
            difference=gap,
            text=f"{metric.text} {_span(ours)}, {wanted}: {state}{unsure}",
        )

    def _compared(
        self, metric: Metric, pair: tuple[Rows, Rows], against: Against, gap: Estimate, *, margin: float | None
    ) -> RuleVerdict:
        """The verdict on `gap`; without a margin only `better` passes."""
        word = verdict(gap.low, gap.high, margin=margin or 0.0)
        ours, theirs = (estimate(metric, rows, seed=self.seed) for rows in pair)
        name = _NAMES[against]
        wanted = f"better than {name}" if margin is None else f"not worse than {name} by over {margin:.4g}"
        values = f"{metric.text} {_show(ours)} against {_show(theirs)} ({name})"
        return RuleVerdict(
            metric=metric.name,
            rule=wanted,
            against=against,
            word=word,
            passed=word == "better" or (margin is not None and word == "not_worse"),
            candidate=ours,
            reference=theirs,
            difference=gap,
            text=f"{values}, better by {_span(gap)}: {_WORDS[word]}",
        )


def _room(ours: Estimate, limit: float, *, at_least: bool) -> Estimate:
    """How far inside its limit an estimate is."""
    if ours.value is None:
        return Estimate(value=None, clusters=ours.clusters, level=ours.level)
    if at_least:
        low, high = (None if end is None else end - limit for end in (ours.low, ours.high))
        value = ours.value - limit
    else:
        low, high = (None if end is None else limit - end for end in (ours.high, ours.low))
        value = limit - ours.value
    return Estimate(value=value, low=low, high=high, clusters=ours.clusters, level=ours.level)


_WORDS: dict[Word, str] = {
    "better": "better",
    "worse": "worse",
    "not_worse": "not worse",
    "cannot_tell": "cannot tell",
}


def _show(estimate: Estimate) -> str:
    return "undefined" if estimate.value is None else f"{estimate.value:.4g}"


def _span(estimate: Estimate) -> str:
    if estimate.value is None:
        return "undefined"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4g}"
    return f"{estimate.value:.4g} [{estimate.low:.4g}, {estimate.high:.4g}]"
