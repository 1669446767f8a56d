"""How often the test rows have decided about a model before, and what that costs.

Of many models without information, one looks good on any test rows. The share of them that may pass is spent over the
uses of the rows (Foster & Stine 2008, Alpha-investing): the first use is at the usual level, and all later ones
together are worth another one, the n-th of them a part of 1 / (n (n + 1)). Rows that were not there before are fresh,
so earlier uses count by the share of today's test rows that they had.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.ids import digest
from cumulant.statistics.records import LEVEL

if TYPE_CHECKING:
    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.ports.journal import Journal, Transaction
    from cumulant.training.splits import TrainTestSplit

#: journal rows: that a model was judged on test rows, by project, question and model
USE = "test_use"
#: a model that was judged on as much of today's test rows before is judged on them again
_AGAIN = 0.5


class WindowUse(msgspec.Struct, frozen=True, kw_only=True):
    """One use of test rows: those from `begin` to `end` (microseconds), or those that the split `rule` made."""

    model: str
    at: datetime
    rows: int
    begin: int | None = None
    end: int | None = None
    rule: str | None = None

    def overlap(self, split: TrainTestSplit, rule: str | None) -> float:
        """The share of the test rows of `split` that this use had."""
        if split.test.at is None:
            return min(1.0, self.rows / max(1, len(split.test))) if rule is not None and rule == self.rule else 0.0
        if self.begin is None or self.end is None or not len(split.test):
            return 0.0
        return float(((split.test.at >= self.begin) & (split.test.at <= self.end)).mean())


class Reuse(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate has to make of earlier uses: `uses` is their number, `earlier` counts each by the share of today's
    test rows that it had; `level` of intervals.
    """

    use: WindowUse
    uses: int = 0
    earlier: float = 0.0
    level: float = LEVEL

    @property
    def note(self) -> tuple[str, ...]:
        if self.level <= LEVEL:
            return ()
        note = (
            f"{self._judged}: the gate's intervals are at {percent(self.level)} instead of {LEVEL:.0%};"
            " later rows would be fresh"
        )
        return (note,)

    @property
    def _judged(self) -> str:
        share = self.earlier / max(self.uses, 1)
        # 99.5% and more would be shown as 100%
        part = "" if share >= 0.995 else f"{100 * share:.2g}% of "
        if self.uses == 1:
            return f"another model was judged before on {part}these test rows"
        return (
            f"other models were judged before, {self.uses} times, on {part and f'an average of {part}'}these test rows"
        )


def reuse_of(context: Context, work: TrainingWork, split: TrainTestSplit, model: str) -> Reuse:
    """This use of the test rows by `model`, and the level that earlier uses by other models leave to it."""
    rule = None if split.share is None else digest([split.share, split.salt, work.evaluation.clusters])
    use = WindowUse(
        model=model,
        at=context.now(),
        rows=len(split.test),
        begin=None if split.test.at is None or not len(split.test) else int(split.test.at.min()),
        end=None if split.test.at is None or not len(split.test) else int(split.test.at.max()),
        rule=rule,
    )
    known = _known(context.project.journal(), _prefix(context, work))
    own = [
        earlier_use.at
        for earlier_use in known
        if earlier_use.model == model and earlier_use.overlap(split, rule) >= _AGAIN
    ]
    until = min(own, default=use.at)
    shares = [
        earlier_use.overlap(split, rule)
        for earlier_use in known
        if earlier_use.model != model and earlier_use.at < until
    ]
    earlier = sum(shares)
    level = level_of(earlier) if work.evaluation.reuse == "widen" else LEVEL
    return Reuse(use=use, uses=sum(share > 0 for share in shares), earlier=earlier, level=level)


def level_of(earlier: float) -> float:
    """The level of intervals after `earlier` uses of the same rows."""
    tail = (1 - LEVEL) / 2
    return 1 - 2 * min(tail, tail / (earlier * (earlier + 1))) if earlier > 0 else LEVEL


def record_use(transaction: Transaction, context: Context, work: TrainingWork, use: WindowUse) -> None:
    """Keep the use; that of a model that was judged on such rows before stays as it was first."""
    place = digest([use.model, use.begin, use.end, use.rule])
    key = f"{_prefix(context, work)}{place}"
    if transaction.get(USE, key) is None:
        transaction.put(USE, key, msgspec.to_builtins(use))


def _known(journal: Journal, prefix: str) -> list[WindowUse]:
    return [msgspec.convert(row.value, WindowUse) for row in journal.rows(USE, prefix)]


def _prefix(context: Context, work: TrainingWork) -> str:
    return f"{context.project.name}/{digest([work.task.entity, work.training.target])}/"


def percent(level: float) -> str:
    """A level as text: `97.5%`."""
    return f"{100 * level:.3f}".rstrip("0").rstrip(".") + "%"
