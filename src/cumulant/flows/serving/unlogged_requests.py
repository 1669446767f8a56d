"""Requests that a gateway's log has as answered and the prediction log has not.

A machine that is lost takes with it the rows that it had not uploaded, and the numbers by which a gap would be seen.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from cumulant.core.clock import SystemClock
from cumulant.core.traffic import Exchange
from cumulant.core.units import duration, from_micros, to_micros
from cumulant.flows.deployment.deployment import was_served
from cumulant.flows.ledger.actions import verb
from cumulant.flows.traffic.clients import exchanges_of
from cumulant.serving.prediction_log.storage.log_reader import logged_days, read_batches, read_day

if TYPE_CHECKING:
    from datetime import date

    from cumulant.core.clock import Clock
    from cumulant.ports.access import Principal
    from cumulant.ports.log import Log, PartInfo
    from cumulant.ports.traffic import ExchangeSource
    from cumulant.project.project import Project

Integers = NDArray[np.int64]
#: how long a row may take from its answer to the log, where nothing is wrong
_SETTLED = timedelta(minutes=1)
_HOUR, _OK, _PAGE = 3_600_000_000, 200, 100_000
_DAY = timedelta(days=1)


class UnloggedRequests(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that servers of an arm answered in the hour from `hour`, by the log of the gateways."""

    hour: datetime
    arm: str
    requests: int


class GatewayComparison(msgspec.Struct, frozen=True, kw_only=True):
    """What the log of the gateways shows of the prediction log, for requests that were answered before `until`."""

    until: datetime
    compared: int
    unlogged: list[UnloggedRequests]


class _Answered(msgspec.Struct):
    """Requests with an answer; `names`: of each the hash of its id, `groups`: its hour since 1970 and its arm."""

    names: Integers
    groups: list[tuple[int, str]]


@verb("predictions.show")
def compare_with_gateway(
    project: Project, *, principal: Principal, clock: Clock | None = None
) -> GatewayComparison | None:
    """Count the requests that a gateway's log has as answered by a server, and the prediction log has not; None where
    no version was served behind a gateway.

    Requests of the last minute are left out: their rows may be under way. So are days of which either log may have been
    deleted.

    Raises:
        StorageError, EngineUnavailableError: one of the logs cannot be read.
    """
    del principal  # the check of it is all
    if not was_served(project):
        return None
    now = (clock or SystemClock()).now().astimezone(UTC)
    until = now - _SETTLED
    keep = duration(project.policies.serving.log.keep).days
    first = min(now.date(), now.date() - timedelta(days=keep) + _DAY)
    since = datetime.combine(first, time(), UTC)
    answered = _read_answered(exchanges_of(project), project.name, since, until)
    missing = np.ones(len(answered.names), dtype=bool)
    log = project.log()
    for day in logged_days(log, first - _DAY) if len(answered.names) else ():
        missing &= ~np.isin(answered.names, _logged_names(log, day))
    counts = Counter(answered.groups[place] for place in np.flatnonzero(missing))
    return GatewayComparison(
        until=until,
        compared=len(answered.names),
        unlogged=[
            UnloggedRequests(hour=from_micros(hour * _HOUR), arm=arm, requests=count)
            for (hour, arm), count in sorted(counts.items())
        ],
    )


def _read_answered(source: ExchangeSource, model: str, since: datetime, until: datetime) -> _Answered:
    earliest, latest = to_micros(since), to_micros(until)
    names: list[Integers] = [np.empty(0, dtype=np.int64)]
    groups: list[tuple[int, str]] = []
    more, cursor = True, ""
    while more:
        page, cursor = source.exchanges(cursor, limit=_PAGE)
        more = len(page) >= _PAGE
        page = [exchange for exchange in page if earliest <= exchange.time < latest and _leaves_a_row(exchange, model)]
        names.append(np.fromiter((hash(exchange.request) for exchange in page), np.int64, len(page)))
        groups += [(exchange.time // _HOUR, exchange.served) for exchange in page]
    return _Answered(np.concatenate(names), groups)


def _leaves_a_row(exchange: Exchange, model: str) -> bool:
    """Whether a server answered a request for a prediction, whose name was not erased."""
    return (
        exchange.model == model
        and exchange.predicts
        and exchange.status == _OK
        and exchange.served != ""
        and exchange.request != ""
    )


def _logged_names(log: Log, day: date) -> Integers:
    """Hashes of the ids of a day's rows, without mirrored copies: such a copy has the id of the answered request."""

    def read(part: PartInfo) -> Integers:
        names = [np.empty(0, dtype=np.int64)]
        for table in read_batches(log, part, ["id", "shadow"]):
            shadow = np.array(table["shadow"].to_pylist(), dtype=bool)
            names.append(np.fromiter(map(hash, table["id"].to_pylist()), np.int64, len(table))[~shadow])
        return np.concatenate(names)

    return np.concatenate([np.empty(0, dtype=np.int64), *read_day(log, day, read)])
