"""Payments as what their readers get: messages of the topic, requests, and files of chargebacks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cumulant.demo.fraud.project import PARTITIONS

if TYPE_CHECKING:
    import polars as pl

REQUEST = ("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT")
_OUTCOME = ("TX_FRAUD", "CHARGEBACK_AT")
_FORMAT = "%Y-%m-%dT%H:%M:%S%.3fZ"


class DuePayment(NamedTuple):
    """A payment that is made now: `due` in seconds from the begin of its phase."""

    number: int
    card: int
    due: float
    message: bytes
    request: bytes


def between(frame: pl.DataFrame, since: datetime, until: datetime) -> pl.DataFrame:
    """The payments of [since, until)."""
    import polars as pl

    return frame.filter(pl.col("TX_DATETIME") >= since, pl.col("TX_DATETIME") < until)


def as_known(frame: pl.DataFrame, moment: datetime) -> pl.DataFrame:
    """The payments with the outcomes that are delivered by the moment."""
    import polars as pl

    known = pl.col("CHARGEBACK_AT") <= moment
    return frame.with_columns(pl.when(known).then(name).alias(name) for name in _OUTCOME)


def without_outcomes(frame: pl.DataFrame) -> pl.DataFrame:
    """The payments as they are known when they are made."""
    import polars as pl

    return frame.with_columns(pl.lit(None, frame.schema[name]).alias(name) for name in _OUTCOME)


def messages(frame: pl.DataFrame) -> list[bytes]:
    """One JSON object each, with null for what is not known."""
    return _lines(frame.select(*REQUEST, *_OUTCOME))


def by_partition(frame: pl.DataFrame) -> Iterator[tuple[int, list[bytes]]]:
    """Messages of each partition: a card stays in one."""
    for number in range(PARTITIONS):
        part = frame.filter(frame["CUSTOMER_ID"] % PARTITIONS == number)
        if part.height:
            yield number, messages(part)


def requests(frame: pl.DataFrame, begin: datetime, speed: float) -> list[DuePayment]:
    """The payments of a phase that begins at the moment `begin`, `speed` times as fast as they happened."""
    due = (frame["TX_DATETIME"] - begin).dt.total_milliseconds() / 1000 / speed
    unlabelled = messages(without_outcomes(frame))
    columns = (frame["TRANSACTION_ID"], frame["CUSTOMER_ID"], due, unlabelled, _lines(frame.select(REQUEST)))
    return [DuePayment(*values) for values in zip(*columns, strict=True)]


def write_chargebacks(frame: pl.DataFrame, path: Path) -> int:
    """The outcomes that are delivered, for monitoring; returns their number."""
    import polars as pl

    known = frame.filter(pl.col("CHARGEBACK_AT").is_not_null())
    known.select("TRANSACTION_ID", "TX_DATETIME", "TX_FRAUD", known_time="CHARGEBACK_AT").with_columns(
        pl.col("TX_DATETIME", "known_time").dt.strftime(_FORMAT)
    ).write_csv(path)
    return known.height


def _lines(frame: pl.DataFrame) -> list[bytes]:
    import polars as pl

    texts = frame.with_columns(pl.col(pl.Datetime).dt.strftime(_FORMAT))
    return texts.write_ndjson().encode().splitlines()
