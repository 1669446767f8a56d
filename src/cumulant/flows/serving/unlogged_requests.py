"""Requests that a gateway's log has as answered and the prediction log has not.

A machine that is lost takes with it the rows that it had not uploaded, and the numbers by which a gap would be seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
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
    from cumulant.core.clock import Clock
    from cumulant.ports.access import Principal
    from cumulant.ports.log import Log, PartInfo
    from cumulant.ports.traffic import ExchangeSource
    from cumulant.project.project import Project

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
#: an answered request: the hash of its id, its hour since 1970, and the place of its arm among the arms
_REQUEST = np.dtype([("id_hash", np.int64), ("hour", np.int32), ("arm", np.int16)])
Requests = NDArray[np.void]
#: how long a row may take from its answer to the log, where nothing is wrong
_SETTLED = timedelta(minutes=1)
_HOUR, _OK, _PAGE = 3_600_000_000, 200, 100_000
_DAY = timedelta(days=1)
_DAY_HOURS, _EPOCH_ORDINAL = 24, date(1970, 1, 1).toordinal()
#: days of the prediction log that may have a request's row, from that of its answer: clocks differ around midnight
_NEAR = (-1, 0, 1)


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


class AnsweredRequests:
    """Answered requests by the day of their answer, in 14 bytes each, and whether their row was found."""

    def __init__(self) -> None:
        self._arms: dict[str, int] = {}
        self._pages: dict[int, list[Requests]] = {}
        self._days: dict[int, tuple[Requests, Flags]] = {}

    def add(self, exchanges: Iterable[Exchange]) -> None:
        requests = np.fromiter(map(self._request, exchanges), _REQUEST)
        days = requests["hour"] // _DAY_HOURS
        for day in np.unique(days).tolist():
            self._pages.setdefault(day, []).append(requests[days == day])

    def _request(self, exchange: Exchange) -> tuple[int, int, int]:
        arm = self._arms.setdefault(exchange.served, len(self._arms))
        return hash(exchange.request), exchange.time // _HOUR, arm

    def end(self) -> None:
        """Call this after the last `add`."""
        while self._pages:
            day, pages = self._pages.popitem()
            requests = np.concatenate(pages)
            self._days[day] = requests, np.zeros(len(requests), dtype=bool)

    def __len__(self) -> int:
        return sum(len(requests) for requests, _ in self._days.values())

    def mark_logged(self, day: date, id_hashes: Integers) -> None:
        """Note that the prediction log has these rows in the part of the day."""
        id_hashes.sort()
        for near in _NEAR:
            if (answered := self._days.get(day.toordinal() - _EPOCH_ORDINAL + near)) is not None and len(id_hashes):
                requests, logged = answered
                places = np.searchsorted(id_hashes, requests["id_hash"])
                logged |= id_hashes[np.minimum(places, len(id_hashes) - 1)] == requests["id_hash"]

    def unlogged(self) -> list[UnloggedRequests]:
        arms, counts = list(self._arms), Counter[tuple[int, str]]()
        for requests, logged in self._days.values():
            groups, sizes = np.unique(requests[~logged][["hour", "arm"]], return_counts=True)
            counts.update(
                {(hour, arms[arm]): count for (hour, arm), count in zip(groups.tolist(), sizes.tolist(), strict=True)}
            )
        return [
            UnloggedRequests(hour=from_micros(hour * _HOUR), arm=arm, requests=count)
            for (hour, arm), count in sorted(counts.items())
        ]


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
    answered = read_answered(exchanges_of(project), project.name, since, until)
    log = project.log()
    for day in logged_days(log, first - _DAY) if len(answered) else ():
        answered.mark_logged(day, _logged_id_hashes(log, day))
    return GatewayComparison(until=until, compared=len(answered), unlogged=answered.unlogged())


def read_answered(source: ExchangeSource, model: str, since: datetime, until: datetime) -> AnsweredRequests:
    """The requests between the two moments that the gateways' log has as answered, and that leave a row."""
    earliest, latest = to_micros(since), to_micros(until)
    answered, more, cursor = AnsweredRequests(), True, ""
    while more:
        page, cursor = source.exchanges(cursor, limit=_PAGE)
        more = len(page) >= _PAGE
        answered.add(
            exchange for exchange in page if earliest <= exchange.time < latest and _is_logged(exchange, model)
        )
    answered.end()
    return answered


def _is_logged(exchange: Exchange, model: str) -> bool:
    """Whether it leaves a row: a server answered a request for a prediction, whose name was not erased."""
    return (
        exchange.model == model
        and exchange.predicts
        and exchange.status == _OK
        and exchange.served != ""
        and exchange.request != ""
    )


def _logged_id_hashes(log: Log, day: date) -> Integers:
    """Hashes of the ids of a day's rows, without mirrored copies: such a copy has the id of the answered request."""

    def read(part: PartInfo) -> Integers:
        hashes = [np.empty(0, dtype=np.int64)]
        for table in read_batches(log, part, ["id", "shadow"]):
            shadow = np.array(table["shadow"].to_pylist(), dtype=bool)
            hashes.append(np.fromiter(map(hash, table["id"].to_pylist()), np.int64, len(table))[~shadow])
        return np.concatenate(hashes)

    return np.concatenate([np.empty(0, dtype=np.int64), *read_day(log, day, read)])
