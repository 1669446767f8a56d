"""What decisions are worth: the amounts of frauds that were held, and the false alarms."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from cumulant.demo.fraud.report import MoneyReport

if TYPE_CHECKING:
    import polars as pl


def worth(version: str, payments: pl.DataFrame, on_hold: Collection[int]) -> MoneyReport:
    """The worth of holding the payments with the numbers `on_hold`, by what they truly were."""
    import polars as pl

    numbers = pl.Series(list(on_hold), dtype=pl.Int64)
    fraud = pl.col("TX_FRAUD") == 1
    stopped = pl.col("TRANSACTION_ID").is_in(numbers.implode())
    amount = pl.col("TX_AMOUNT")
    sums = payments.select(
        frauds=fraud.sum(),
        total=amount.filter(fraud).sum(),
        stopped=amount.filter(fraud & stopped).sum(),
        alarms=(~fraud & stopped).sum(),
    ).row(0, named=True)
    return MoneyReport(
        version=version,
        payments=payments.height,
        frauds=sums["frauds"],
        fraud_amount=round(sums["total"], 2),
        stopped_amount=round(sums["stopped"], 2),
        false_alarms=sums["alarms"],
    )
