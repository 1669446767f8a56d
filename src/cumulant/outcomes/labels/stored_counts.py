"""Counts of labels that are stored beside the labels: they hold until a file of the log or of the labels changes, or a
label becomes known. What is damaged or missing is counted again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import date, datetime
from functools import cache
from pathlib import Path

import msgspec

from cumulant.core.ids import digest
from cumulant.core.plan import Field
from cumulant.core.system.atomic_files import file_version, read_checked, write_checked
from cumulant.core.version import __version__
from cumulant.outcomes.labels import outcome_folder
from cumulant.outcomes.labels.label_counts import LabelCounts, Period, Report, report_of
from cumulant.ports.log import Log, current_parts

FILE = "counts"
Key = Callable[[], Sequence[Field]]


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """`inputs`: what the counts were made of. `key`: by which labels named predictions; None where none did so."""

    inputs: str
    key: tuple[Field, ...] | None
    counts: LabelCounts


def stored_report(
    folder: Path,
    predictions: Log,
    now: datetime,
    *,
    key: Key = tuple,
    by: Period = "day",
    since: date | None = None,
    until: date | None = None,
) -> Report:
    """What is known by `now` of the labels in `folder` and the log in `predictions`; the counts are stored.

    Cohorts are of the predictions of the days `since` to `until`. Labels are unmatched where no prediction of the whole
    log is named, whatever days are requested.

    `key` reads the fields of a request by which a label may name its prediction, where a label does.

    Raises:
        StorageError: a file cannot be read.
    """
    return report_of(_counts(folder, predictions, now, cache(lambda: tuple(key()))), by=by, since=since, until=until)


def _counts(folder: Path, predictions: Log, now: datetime, key: Key) -> LabelCounts:
    inputs = _inputs(folder, predictions)
    if inputs is not None and (stored := _read(folder, inputs, key)) is not None and stored.holds(now):
        return stored
    from cumulant.outcomes.labelled_log import LabelledLog
    from cumulant.outcomes.labels.cohorts import count

    counts, keyed = count(LabelledLog(folder, predictions, key=key), now)
    if inputs is not None and inputs == _inputs(folder, predictions):
        stored_now = _Stored(inputs=inputs, key=tuple(key()) if keyed else None, counts=counts)
        with contextlib.suppress(OSError):  # without a right to write, they are counted each time
            write_checked(folder / FILE, msgspec.msgpack.encode(stored_now))
    return counts


def _inputs(folder: Path, predictions: Log) -> str | None:
    """A hash that changes with each file; None where there are no labels, or files change just now."""
    labels = [
        path for batch in outcome_folder.list_batches(folder) for path in outcome_folder.list_parts(folder, batch)
    ]
    if not labels:
        return None
    try:
        files = [file_version(path) for path in labels]
    except FileNotFoundError:
        return None
    parts = [[part.key, part.stamp] for part in current_parts(predictions)]
    return digest([__version__, *files, *parts])


def _read(folder: Path, inputs: str, key: Key) -> LabelCounts | None:
    content = read_checked(folder / FILE)
    if content is None:
        return None
    try:
        stored = msgspec.msgpack.decode(content, type=_Stored)
    except msgspec.MsgspecError:  # of another version
        return None
    same_key = stored.key is None or stored.key == tuple(key())
    return stored.counts if stored.inputs == inputs and same_key else None
