"""Exchanges of all gateways, read from the log that their agents write."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from cumulant.core.errors import StorageError
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

    def _unread(self, position: LogCursor) -> Iterator[PartInfo]:
        """Parts with what was not read. A part's day is that of its writing, so that earlier days are complete."""
        days = self._log.days()
        position.forget_before(days[0] if days else None)
        read = max((key[:10] for key in position.intervals), default="")
        for day in days:
            if (day + _CLOCKS).isoformat() >= read:
                current, _ = split_covered(self._log.parts(day))
                yield from sorted(
                    (part for part in current if not position.includes(part)), key=lambda part: (part.life, part.first)
                )


def _new_rows(log: Log, part: PartInfo, position: LogCursor) -> list[Exchange]:
    """The rows of a part that were not read from the parts that it was merged of."""
    import pyarrow as pa

    from cumulant.flows.traffic.exchange_parts import read_part

    try:
        with log.open(part) as stream:
            rows = read_part(stream)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"the part {part.key} of {log.location} cannot be read: {error}",
            subject=part.key,
            hint="delete it, if its exchanges can be missed",
        ) from None
    read = position.intervals.get(f"{part.day}/{part.life}", [])
    return [row for number, row in enumerate(rows, part.first) if not any(low <= number <= high for low, high in read)]
