"""Counts of labels that are stored beside the joined rows: they hold until a part of the log or of the labels changes,
or a label becomes known. What is damaged or missing is counted again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import date, datetime
from functools import cache

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.ids import digest
from cumulant.core.plan import Field
from cumulant.core.version import __version__
from cumulant.outcomes.labels.label_counts import LabelCounts, Period, Report, report_of
from cumulant.outcomes.logs import OutcomeLogs
from cumulant.ports.log import Log, current_parts

#: of the log `joined`
NAME = "counts"
Key = Callable[[], Sequence[Field]]


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """`inputs`: what the counts were made of. `key`: by which labels named predictions; None where none did so."""

    inputs: str
    key: tuple[Field, ...] | None
    counts: LabelCounts


def stored_report(
    logs: OutcomeLogs,
    predictions: Log,
    now: datetime,
    *,
    key: Key = tuple,
    by: Period = "day",
    since: date | None = None,
    until: date | None = None,
) -> Report:
    """What is known by `now` of the labels and of the log `predictions`; the counts are stored.

    Cohorts are of the predictions of the days `since` to `until`. Labels are unmatched where no prediction of the whole
    log is named, whatever days are requested.

    `key` reads the fields of a request by which a label may name its prediction, where a label does.

    Raises:
        StorageError: a file cannot be read.
    """
    return report_of(_counts(logs, predictions, now, cache(lambda: tuple(key()))), by=by, since=since, until=until)


def _counts(logs: OutcomeLogs, predictions: Log, now: datetime, key: Key) -> LabelCounts:
    inputs = _inputs(logs, predictions)
    if inputs is not None and (stored := _read(logs, inputs, key)) is not None and stored.holds(now):
        return stored
    from cumulant.outcomes.labelled_log import LabelledLog
    from cumulant.outcomes.labels.cohorts import count

    counts, keyed = count(LabelledLog(logs, predictions, key=key), now)
    if inputs is not None and inputs == _inputs(logs, predictions):
        stored_now = _Stored(inputs=inputs, key=tuple(key()) if keyed else None, counts=counts)
        with contextlib.suppress(CumulantError):  # without a right to write, they are counted each time
            logs.joined.put_state(NAME, msgspec.msgpack.encode(stored_now))
    return counts


def _inputs(logs: OutcomeLogs, predictions: Log) -> str | None:
    """A hash that changes with each part; None where there are no labels."""
    labels = current_parts(logs.labels)
    if not labels:
        return None
    parts = [[part.key, part.stamp] for part in (*labels, *current_parts(predictions))]
    return digest([__version__, *parts])


def _read(logs: OutcomeLogs, inputs: str, key: Key) -> LabelCounts | None:
    content = logs.joined.state(NAME)
    if content is None:
        return None
    try:
        stored = msgspec.msgpack.decode(content, type=_Stored)
    except msgspec.MsgspecError:  # of another version, or damaged
        return None
    same_key = stored.key is None or stored.key == tuple(key())
    return stored.counts if stored.inputs == inputs and same_key else None
