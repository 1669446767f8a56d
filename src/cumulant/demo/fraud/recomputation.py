"""Served decisions and the features behind them, computed again from the stored history."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from cumulant.demo.fraud.messages import REQUEST
from cumulant.demo.fraud.project import NAME

if TYPE_CHECKING:
    import polars as pl

    import cumulant
    from cumulant.api.results import PredictionView
    from cumulant.demo.fraud.traffic import PaymentDecision

#: served and recomputed numbers differ by no more, relative to those above 1
_CLOSE = 1e-9
#: seconds until the log has what was answered, on a machine that is busy, and until the second look at all of it
_LONGEST, _LOOK = 60.0, 0.5
#: the column with the number of a payment
KEY = "TRANSACTION_ID"


class Recomputation(NamedTuple):
    """Of served decisions: how many were computed again, with how many values of stored features, how many differ in
    any value or in the probability, and how many have no logged features. `features_of`: by payment, what was computed.
    """

    decisions: int
    features: int
    mismatches: int
    unlogged: int
    features_of: Mapping[int, Mapping[str, Any]]


def recompute(
    project: cumulant.Project, payments: pl.DataFrame, decisions: Sequence[PaymentDecision], since: datetime
) -> Recomputation:
    """Compute the decisions again; `since`: on the clock, when the first was made.

    Raises:
        StorageError: the prediction log cannot be read.
    """
    import polars as pl

    served = {decision.number: decision for decision in decisions if not decision.error}
    logged = _logged(project, served, since)
    computed: dict[int, Mapping[str, Any]] = {}
    differing = features = 0
    for version in sorted({row.version for row in logged.values()}):
        numbers = pl.Series([number for number, row in logged.items() if row.version == version], dtype=pl.Int64)
        rows = payments.filter(pl.col(KEY).is_in(numbers.implode())).select(REQUEST)
        again = project.predict(rows, model=f"{NAME}/{version}", features=True)
        for number, values in zip(rows[KEY], again.iter_rows(named=True), strict=True):
            vector, computed[number] = logged[number].features, values["features"]
            features += len(vector)
            differing += differs(
                {"probability": served[number].probability, **vector},
                {"probability": values["probability"], **values["features"]},
            )
    unlogged = len(served) - sum(1 for row in logged.values() if row.features)
    return Recomputation(len(logged), features, differing, unlogged, computed)


def differs(served: Mapping[str, Any], again: Mapping[str, Any]) -> bool:
    """Whether a served value is another one than that which was computed again, or than none."""
    return any(not _equal(value, again.get(name)) for name, value in served.items())


def _equal(served: Any, again: Any) -> bool:
    if isinstance(again, float) and math.isnan(again):
        again = None  # JSON has no other text for it
    if served is None or again is None:
        return served is again
    if isinstance(served, str) or isinstance(again, str):
        return bool(served == again)
    return math.isclose(served, again, rel_tol=_CLOSE, abs_tol=_CLOSE)


def _logged(
    project: cumulant.Project, served: Mapping[int, PaymentDecision], since: datetime
) -> dict[int, PredictionView]:
    """The log's rows of these decisions, by number; a row is there some seconds after its answer."""
    deadline, pause = time.monotonic() + _LONGEST, _LOOK
    while True:
        rows = project.outcomes.predictions(since=since, limit=2 * len(served) + 1_000)
        logged = {row.request[KEY]: row for row in rows if not row.shadow and row.request.get(KEY) in served}
        if len(logged) == len(served) or time.monotonic() > deadline:
            return logged  # type: ignore[return-value]  # numbers, as those of the served ones
        time.sleep(pause)
        pause *= 2  # each look reads the log of all decisions
