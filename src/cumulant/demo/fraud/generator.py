"""Invented card payments with frauds, the same rows for a seed on every machine.

Customers live somewhere on a square and pay at terminals near by, each at a pace, an amount and an hour of their own.
Frauds follow the three patterns of the simulator of the public Fraud Detection Handbook, in our own numbers:

1. *large*: three payments in a thousand are far above what anybody pays;
2. *terminal*: a compromised terminal copies cards for four weeks; two in five payments at it are frauds, whose amounts
   look as usual;
3. *stolen*: for a week the thief of a card adds payments of his own, at terminals anywhere: a few large ones each day,
   and from the day `small_thefts_from` on many of the usual amount.

A day may have a multiple of the usual payments of customers, which is how a spike is made. What was a fraud becomes
known on Fridays: then the outcomes of all payments that are seven days old are delivered, but a few come one delivery
later, and a few never.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from cumulant.demo.fraud.draws import Draws

if TYPE_CHECKING:
    import polars as pl

    from cumulant.demo.fraud.draws import Floats, Ints

LARGE, TERMINAL, STOLEN = 1, 2, 3
#: the share of large ones, and the amount that they begin at
LARGE_SHARE, LARGE_AMOUNT = 0.003, 230.0
#: days that a terminal stays compromised, and the share of frauds at it meanwhile
COMPROMISED_DAYS, COMPROMISED_SHARE = 28, 0.4
#: days that a thief pays; payments a day and times the usual amount, before and after thieves learn
STOLEN_DAYS, LARGE_THEFTS, SMALL_THEFTS = 7, (1.5, 4.0), (6.0, 1.0)
#: of all terminals compromised a day, and of all cards stolen a day
COMPROMISED_RATE, STOLEN_RATE = 0.0012, 0.002
#: days after which an outcome is delivered, and the shares that come a delivery later, and never
LABEL_DAYS, LATE_SHARE, MISSING_SHARE = 7, 0.05, 0.03
_REACH, _MOST, _DAY, _SECOND = 14.0, 220.0, 86_400, 1_000_000
_FRIDAY = 4


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What is invented. `spikes`: multiples of the usual payments by the day's number, from 0."""

    begin: datetime
    days: int
    customers: int = 400
    terminals: int = 600
    spikes: dict[int, float] = {}
    small_thefts_from: int | None = None
    seed: int = 7


class _Rows(msgspec.Struct, frozen=True):
    """Columns of payments: seconds since the begin, and so on."""

    at: Floats
    customer: Ints
    terminal: Ints
    amount: Floats
    scenario: Ints

    def __add__(self, other: _Rows) -> _Rows:
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return _Rows(*(np.concatenate(both) for both in zip(mine, theirs, strict=True)))

    def take(self, places: Ints) -> _Rows:
        return _Rows(*(column[places] for column in msgspec.structs.astuple(self)))


class _Customers(msgspec.Struct, frozen=True):
    """Habits: payments a day, usual amount and hour, and the terminals near by: `count` from `first` of `reached`."""

    a_day: Floats
    amount: Floats
    hour: Floats
    first: Ints
    count: Ints
    reached: Ints


def payments(scenario: Scenario) -> pl.DataFrame:
    """All payments in the order of time, with the columns of the Fraud Detection Handbook.

    `CHARGEBACK_AT` is when the outcome is delivered; null where it never is.
    """
    import polars as pl

    customers = _customers(scenario)
    rows = _usual(scenario, customers)
    rows = _compromised(scenario, _large(scenario, rows)) + _stolen(scenario, customers)
    rows = rows.take(np.lexsort((rows.amount, rows.customer, rows.at)))
    # Nobody pays twice in a second with one card.
    _, places = np.unique(np.stack([rows.customer, rows.at.astype(np.int64)]), axis=1, return_index=True)
    rows = rows.take(np.sort(places))
    begin = np.datetime64(scenario.begin.replace(tzinfo=None), "us").astype(np.int64)
    known = _known(scenario, rows)
    frame = pl.DataFrame(
        {
            "TRANSACTION_ID": np.arange(len(rows.at)),
            "TX_DATETIME": begin + np.round(rows.at * 1000).astype(np.int64) * 1000,
            "CUSTOMER_ID": rows.customer,
            "TERMINAL_ID": rows.terminal,
            "TX_AMOUNT": np.round(rows.amount, 2),
            "TX_FRAUD": (rows.scenario > 0).astype(np.int64),
            "TX_FRAUD_SCENARIO": rows.scenario,
            "CHARGEBACK_AT": np.where(known < 0, 0, begin + known * _DAY * _SECOND),
        }
    )
    times = pl.col("TX_DATETIME", "CHARGEBACK_AT").cast(pl.Datetime("us", "UTC"))
    return frame.with_columns(times).with_columns(
        CHARGEBACK_AT=pl.when(pl.Series(known >= 0)).then(pl.col("CHARGEBACK_AT"))
    )


def _customers(scenario: Scenario) -> _Customers:
    draws, count = Draws(scenario.seed, 0), scenario.customers
    terminals = np.stack([draws.shares(scenario.terminals), draws.shares(scenario.terminals)]) * 100
    homes = np.stack([draws.shares(count), draws.shares(count)]) * 100
    far = np.hypot(*(homes[:, :, None] - terminals[:, None, :]))
    near = far <= np.maximum(_REACH, np.sort(far, axis=1)[:, [2]])  # three at least
    counts = near.sum(axis=1)
    return _Customers(
        a_day=0.2 + 1.2 * draws.shares(count),
        amount=np.exp(2.4 + 1.8 * draws.shares(count)),
        hour=7.0 + 14.0 * draws.shares(count),
        first=np.cumsum(counts) - counts,
        count=counts,
        reached=np.nonzero(near)[1],
    )


def _factors(scenario: Scenario) -> Floats:
    factors = np.ones(scenario.days)
    for day, factor in scenario.spikes.items():
        factors[day] = factor
    return factors


def _usual(scenario: Scenario, customers: _Customers) -> _Rows:
    draws = Draws(scenario.seed, 1)
    means = np.outer(_factors(scenario), customers.a_day).ravel()
    cells = np.repeat(np.arange(len(means)), draws.poisson(means))
    day, customer = cells // scenario.customers, cells % scenario.customers
    count = len(cells)
    hour = (customers.hour[customer] + 4.0 * draws.normal(count)) % 24
    amount = customers.amount[customer] * np.exp(0.45 * draws.normal(count))
    terminal = customers.reached[customers.first[customer] + draws.below(customers.count[customer])]
    return _Rows(
        day * _DAY + hour * 3600, customer, terminal, np.clip(amount, 0.5, _MOST), np.zeros(count, dtype=np.int64)
    )


def _large(scenario: Scenario, rows: _Rows) -> _Rows:
    draws, count = Draws(scenario.seed, 2), len(rows.at)
    chosen, times = draws.shares(count) < LARGE_SHARE, 1.0 + 2.0 * draws.shares(count)
    return msgspec.structs.replace(
        rows,
        amount=np.where(chosen, LARGE_AMOUNT * times, rows.amount),
        scenario=np.where(chosen, LARGE, rows.scenario),
    )


def _compromised(scenario: Scenario, rows: _Rows) -> _Rows:
    draws, terminals = Draws(scenario.seed, 3), scenario.terminals
    begins = (draws.shares(scenario.days * terminals) < COMPROMISED_RATE).reshape(scenario.days, terminals)
    last = _last_begin(begins)
    day = (rows.at // _DAY).astype(np.int64)
    open_there = day - last[day, rows.terminal] < COMPROMISED_DAYS
    copied = open_there & (draws.shares(len(day)) < COMPROMISED_SHARE) & (rows.scenario == 0)
    return msgspec.structs.replace(rows, scenario=np.where(copied, TERMINAL, rows.scenario))


def _last_begin(begins: np.ndarray) -> Ints:
    """By day, the newest day up to it with a begin; far in the past where there was none."""
    days = np.arange(len(begins))[:, None]
    return np.maximum.accumulate(np.where(begins, days, -10_000), axis=0).astype(np.int64)


def _stolen(scenario: Scenario, customers: _Customers) -> _Rows:
    draws, count = Draws(scenario.seed, 4), scenario.customers
    begins = (draws.shares(scenario.days * count) < STOLEN_RATE).reshape(scenario.days, count)
    stolen = np.arange(scenario.days)[:, None] - _last_begin(begins) < STOLEN_DAYS
    days, cards = np.nonzero(stolen)
    small = days >= (scenario.days if scenario.small_thefts_from is None else scenario.small_thefts_from)
    pace = np.where(small, SMALL_THEFTS[0], LARGE_THEFTS[0])
    cells = np.repeat(np.arange(len(days)), draws.poisson(pace))
    day, customer, times = days[cells], cards[cells], np.where(small, SMALL_THEFTS[1], LARGE_THEFTS[1])[cells]
    amount = customers.amount[customer] * times * np.exp(0.45 * draws.normal(len(cells)))
    terminal = draws.below(np.full(len(cells), scenario.terminals))
    at = day * _DAY + draws.shares(len(cells)) * _DAY
    return _Rows(at, customer, terminal, np.maximum(amount, 0.5), np.full(len(cells), STOLEN))


def _known(scenario: Scenario, rows: _Rows) -> Ints:
    """The day, from the begin on, on which each outcome is delivered; -1 where it never is."""
    draws, count = Draws(scenario.seed, 5), len(rows.at)
    first = (_FRIDAY - scenario.begin.weekday()) % 7
    old = rows.at / _DAY + LABEL_DAYS - first
    friday = first + np.ceil(old / 7).astype(np.int64) * 7
    late, missing = draws.shares(count) < LATE_SHARE, draws.shares(count) < MISSING_SHARE
    return np.where(missing, -1, friday + 7 * late).astype(np.int64)


def spike_factor(frame: pl.DataFrame, begin: datetime, end: datetime) -> float:
    """How many times as many payments a day [begin, end) has as the seven days before it."""
    import polars as pl

    moment, days = pl.col("TX_DATETIME"), (end - begin) / timedelta(days=1)
    spike = frame.filter(moment >= begin, moment < end).height / days
    return spike / (frame.filter(moment >= begin - timedelta(days=7), moment < begin).height / 7)
