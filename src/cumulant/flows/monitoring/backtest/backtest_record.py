"""The results of backtests in the journal: the newest few of a project."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, cast

import msgspec

from cumulant.flows.ledger.actions import verb
from cumulant.flows.monitoring.backtest.policy_comparison import HistoryResult, PolicyResult

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Transaction
    from cumulant.project.project import Project

#: journal rows, by run
BACKTEST = "backtest"
#: results that are kept
_KEPT = 10


class BacktestResult(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of each policy over windows of `every` from `start` on; the first `first` train the first model.

    `delay`: windows whose labels have not come at a look.
    """

    run: str
    target: str
    task: str
    loss: str
    trainer: str
    parameters_of: str | None
    history: str
    rows: int
    start: datetime
    end: datetime
    every: str
    windows: int
    first: int
    delay: int
    rules: tuple[PolicyResult, ...]
    histories: tuple[HistoryResult, ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]


class BacktestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A result with the moment at which it was stored."""

    at: datetime
    result: BacktestResult


def write_backtest(transaction: Transaction, result: BacktestResult, *, at: datetime) -> None:
    """Store a result; those beyond the newest few are deleted."""
    record = msgspec.to_builtins(BacktestRecord(at=at, result=result))
    transaction.put(BACKTEST, result.run, cast("dict[str, object]", record))
    for row in transaction.rows(BACKTEST)[:-_KEPT]:  # runs are named by their moment
        transaction.delete(BACKTEST, row.key)


@verb("monitor.show")
def stored_backtests(project: Project, *, principal: Principal) -> list[BacktestRecord]:
    """The results that are kept, the newest first; without those that another version of the program stored."""
    records = []
    for row in reversed(project.journal().rows(BACKTEST)):
        try:
            records.append(msgspec.convert(row.value, BacktestRecord))
        except msgspec.ValidationError:
            continue
    return records
