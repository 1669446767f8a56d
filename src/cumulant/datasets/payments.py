"""Invented card payments with labelled frauds, so that the fraud template runs as it stands.

Customers live at a point of a square and pay at terminals near by, at their own pace and amounts. Three kinds of fraud
are laid over that: amounts far above what anyone pays (1), terminals that were compromised for four weeks (2), and
cards that were stolen and overdrawn for two weeks (3). The same seed gives the same rows on every machine.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import polars as pl

START = datetime(2018, 4, 1)  # noqa: DTZ001  # the file holds times without a zone; the project file declares UTC
DAYS = 91
CUSTOMERS = 140
TERMINALS = 260
_REACH = 14.0
_UNUSUAL_AMOUNT = 230.0
_COMPROMISED_DAYS = 28
_STOLEN_DAYS = 14
_DAY_SECONDS = 86_400


class Payment(msgspec.Struct, frozen=True, rename=str.upper):
    """One payment. `tx_fraud_scenario` is 0 for a genuine one."""

    transaction_id: int
    tx_datetime: datetime
    customer_id: int
    terminal_id: int
    tx_amount: float
    tx_fraud: int
    tx_fraud_scenario: int


@dataclass(frozen=True)
class _Customer:
    number: int
    terminals: tuple[int, ...]
    a_day: float
    amount: float
    hour: float


def payments(seed: int = 7) -> list[Payment]:
    """Three months of payments in the order of time: about 8,000 rows, 2 to 4% of them fraud."""
    draw = random.Random(seed)  # noqa: S311  # invented data, no secret
    places = [(draw.random() * 100, draw.random() * 100) for _ in range(TERMINALS)]
    customers = [_customer(number, places, draw) for number in range(CUSTOMERS)]
    genuine = sorted(_genuine(customers, draw))
    compromised = {(day, draw.randrange(TERMINALS)) for day in range(DAYS) if draw.random() < 0.35}
    stolen = {(day, draw.randrange(CUSTOMERS)) for day in range(DAYS) if draw.random() < 0.30}
    rows: list[Payment] = []
    for seconds, customer, terminal, amount in genuine:
        payment = (seconds // _DAY_SECONDS, customer, terminal, amount)
        paid, scenario = _fraud(payment, draw.random(), compromised=compromised, stolen=stolen)
        when = START + timedelta(seconds=seconds)
        rows.append(Payment(len(rows), when, customer, terminal, paid, int(scenario > 0), scenario))
    return rows


def frame(seed: int = 7) -> pl.DataFrame:
    """The payments as a frame, with the columns of the template."""
    import polars as pl

    names = [field.encode_name for field in msgspec.structs.fields(Payment)]
    return pl.DataFrame([msgspec.structs.astuple(row) for row in payments(seed)], schema=names, orient="row")


def _customer(number: int, places: list[tuple[float, float]], draw: random.Random) -> _Customer:
    home = (draw.random() * 100, draw.random() * 100)
    near = sorted(range(len(places)), key=lambda terminal: math.dist(home, places[terminal]))
    reached = tuple(terminal for terminal in near if math.dist(home, places[terminal]) < _REACH) or tuple(near[:3])
    return _Customer(
        number,
        reached,
        a_day=0.15 + 1.0 * draw.random(),
        amount=math.exp(2.4 + 1.8 * draw.random()),
        hour=9.0 + 10.0 * draw.random(),
    )


def _genuine(customers: list[_Customer], draw: random.Random) -> Iterator[tuple[int, int, int, float]]:
    for customer in customers:
        for day in range(DAYS):
            for _ in range(_poisson(customer.a_day, draw)):
                hour = customer.hour + 3.0 * _normal(draw)
                seconds = day * _DAY_SECONDS + int((hour % 24) * 3600)
                amount = round(customer.amount * math.exp(0.45 * _normal(draw)), 2)
                terminal = customer.terminals[draw.randrange(len(customer.terminals))]
                yield seconds, customer.number, terminal, min(max(amount, 0.5), 220.0)


def _fraud(
    payment: tuple[int, int, int, float],
    chance: float,
    *,
    compromised: set[tuple[int, int]],
    stolen: set[tuple[int, int]],
) -> tuple[float, int]:
    """The amount as paid, and the kind of fraud that a payment became."""
    day, customer, terminal, amount = payment
    if chance < 0.002:
        return round(_UNUSUAL_AMOUNT * (1.0 + 500.0 * chance), 2), 1
    if any((start, terminal) in compromised for start in range(max(0, day - _COMPROMISED_DAYS + 1), day + 1)):
        return amount, (2 if chance < 0.45 else 0)
    if any((start, customer) in stolen for start in range(max(0, day - _STOLEN_DAYS + 1), day + 1)) and chance < 0.35:
        return round(amount * 5, 2), 3
    return amount, 0


# Only `random()` and `randrange()` of the standard generator are promised to stay the same between versions.


def _normal(draw: random.Random) -> float:
    return math.sqrt(-2.0 * math.log(1.0 - draw.random())) * math.cos(2.0 * math.pi * draw.random())


def _poisson(mean: float, draw: random.Random) -> int:
    limit, product, count = math.exp(-mean), draw.random(), 0
    while product > limit:
        product *= draw.random()
        count += 1
    return count
