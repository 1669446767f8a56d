"""Exchanges of all gateways, read from the log that their agents write."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import timedelta

from cumulant.core.errors import LeaseHeldError, StorageError
from cumulant.core.traffic import Exchange
from cumulant.ports.log import Log, LogCursor, PartInfo, split_covered

#: clocks of machines, which name the days of parts, differ by less
_CLOCKS = timedelta(days=1)


class LoggedExchanges:
    """The port `ExchangeSource` by a log. Those of one gateway come in order; the gateways after each other."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def exchanges(self, after: str = "", *, limit: int = 100_000) -> tuple[list[Exchange], str]:
        """As the port, in whole parts: `limit` may be passed by one of them.

        Raises:
            StorageError, EngineUnavailableError: as `Log`, or a part is damaged.
        """
        position = LogCursor.parse(after)
        exchanges: list[Exchange] = []
        try:
            for part in self._unread(position):
                exchanges += _new_rows(self._log, part, position)
                position.add(part)
                if len(exchanges) >= limit:
                    break
        except FileNotFoundError:  # merged a moment ago: the next call lists what covers it
            pass
        return exchanges, position.text

    def erase_names(self, keys: Collection[str], requests: Collection[str]) -> int:
        """As the port; parts are replaced, those first that were merged and wait for their deletion."""
        with self._log.maintenance() as mine:
            if not mine:
                raise LeaseHeldError(f"another process maintains {self._log.location}", hint="run this again later")
            count = 0
            for day in self._log.days():
                current, covered = split_covered(self._log.parts(day))
                for part in (*covered, *current):
                    with suppress(FileNotFoundError):
                        count += _erase_names(self._log, part, keys, requests)
            return count

    def _unread(self, position: LogCursor) -> Iterator[PartInfo]:
        """Parts with what was not read. A part's day is that of its writing, so that earlier days are complete."""
        days = self._log.days()
        position.forget_before(days[0] if days else None)
        read = max((key[:10] for key in position.intervals), default="")
        for day in days:
            if (day + _CLOCKS).isoformat() >= read:
                current, _ = split_covered(self._log.parts(day))
                fresh = [part for part in current if not position.includes(part)]
                self._log.prefetch(fresh)
                yield from sorted(fresh, key=lambda part: (part.life, part.first))


def _erase_names(log: Log, part: PartInfo, keys: Collection[str], requests: Collection[str]) -> int:
    """How many exchanges of a part were emptied; where there are none, it is not replaced."""
    from cumulant.flows.traffic.exchange_parts import write_part

    rows = _read_rows(log, part)
    count = sum(row.names(keys, requests) for row in rows)
    if count:
        with log.replace(part) as stream:
            write_part(stream, [row.without_names() if row.names(keys, requests) else row for row in rows])
    return count


def _new_rows(log: Log, part: PartInfo, position: LogCursor) -> list[Exchange]:
    """The rows of a part that were not read from the parts that it was merged of."""
    read = position.intervals.get(f"{part.day}/{part.life}", [])
    rows = enumerate(_read_rows(log, part, gateway=part.life), part.first)
    return [row for number, row in rows if not any(low <= number <= high for low, high in read)]


def _read_rows(log: Log, part: PartInfo, *, gateway: str = "") -> list[Exchange]:
    import pyarrow as pa

    from cumulant.flows.traffic.exchange_parts import read_part

    try:
        with log.open(part) as stream:
            return read_part(stream, gateway=gateway)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"the part {part.key} of {log.location} cannot be read: {error}",
            subject=part.key,
            hint="delete it, if its exchanges can be missed",
        ) from None
