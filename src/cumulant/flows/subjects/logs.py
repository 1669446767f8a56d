"""Logs of predictions, labels and exchanges: they hold keyed hashes of personal values, and are not rewritten yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.system.atomic_files import replace_file
from cumulant.flows.outcomes.labels import FOLDER
from cumulant.flows.subjects.places import Receipt, Subject, SubjectPlace, status_after, total

if TYPE_CHECKING:
    from cumulant.flows.ledger.run_context import Context
    from cumulant.project.project import Project

PREDICTIONS, LABELS, INBOX, EXCHANGES = "prediction log", "labels", "label inbox", "gateway log"
#: columns of labels and joined rows that name a prediction by its key
_KEYS = ("key", "ref", "request")
_PAGE = 100_000


def find_predictions(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Parts of the log with requests of the subject."""
    from cumulant.core.prediction import read_object
    from cumulant.serving.prediction_log.storage.log_reader import iterate_files

    places = []
    for part, rows in iterate_files(context.project.log()):
        count = sum(
            subject.is_in(read_object(text))
            for batch in rows(columns=["request"])
            for text in batch["request"].to_pylist()
            if subject.is_named_in(text)
        )
        if count:
            places.append(SubjectPlace(store=PREDICTIONS, where=part.key, rows=count))
    return places


def keep_predictions(context: Context, subject: Subject) -> Receipt:
    places, keep = find_predictions(context, subject), context.project.policies.serving.log.keep
    reason = f"parts are immutable; `serving.log.keep: {keep}` deletes each of them"
    return _kept(PREDICTIONS, places, reason)


def find_labels(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Files of labels and joined rows that name a prediction by the subject."""
    import polars as pl

    places = []
    for path in sorted((context.project.state / FOLDER).rglob("*.parquet")):
        rows = pl.scan_parquet(path)
        schema = rows.collect_schema()
        named = [
            pl.col(name).str.contains(msgspec.json.encode(text).decode(), literal=True)
            for name in _KEYS
            if schema.get(name) == pl.String
            for text in subject.texts
        ]
        if not named:
            continue
        count = int(rows.select(pl.any_horizontal(named).fill_null(value=False).sum()).collect().item())
        if count:
            places.append(_place(context.project, LABELS, path, count))
    return places


def keep_labels(context: Context, subject: Subject) -> Receipt:
    return _kept(LABELS, find_labels(context, subject), "labels and joined rows have no retention yet")


def find_inbox(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Posts of labels that wait for ingestion; their keys are as they were posted."""
    return [
        _place(context.project, INBOX, path, len(lines) - len(others))
        for path, lines, others in _inbox(context.project, subject)
    ]


def erase_inbox(context: Context, subject: Subject) -> Receipt:
    """Take the subject's labels out of posts that wait."""
    from cumulant.outcomes.labels.store import lock_folder

    places, folder = find_inbox(context, subject), context.project.state / FOLDER
    if places:
        with lock_folder(folder):  # no ingestion takes a file meanwhile
            for path, _, others in _inbox(context.project, subject):
                replace_file(path, b"".join(others), private=True)
    remaining = find_inbox(context, subject)
    return Receipt(
        store=INBOX,
        status=status_after(places, remaining),
        rows=total(places),
        rewritten=tuple(place.where for place in places),
        reason="run this again: labels were posted meanwhile" if remaining else "",
    )


def _inbox(project: Project, subject: Subject) -> Iterator[tuple[Path, list[bytes], list[bytes]]]:
    """Each post that names the subject: its lines, and those of others."""
    for path in sorted((project.state / FOLDER / "inbox").glob("*.jsonl")):
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:  # ingested meanwhile
            continue
        others = [line for line in lines if not subject.is_in(_row(line))]
        if len(others) < len(lines):
            yield path, lines, others


def _row(line: bytes) -> dict[str, object]:
    try:
        row = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return {}
    return row if isinstance(row, dict) else {}


def find_exchanges(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Requests at the gateway whose key is the subject's hash."""
    traffic, cursor, count = context.project.traffic(), "", 0
    while True:
        exchanges, cursor = traffic.exchanges(cursor, limit=_PAGE)
        count += sum(exchange.key in subject.texts for exchange in exchanges)
        if len(exchanges) < _PAGE:
            return [SubjectPlace(store=EXCHANGES, where="exchanges", rows=count)] if count else []


def keep_exchanges(context: Context, subject: Subject) -> Receipt:
    reason = "it holds the hash only; the oldest files go when new ones are written"
    return _kept(EXCHANGES, find_exchanges(context, subject), reason)


def _place(project: Project, store: str, path: Path, rows: int) -> SubjectPlace:
    return SubjectPlace(store=store, where=path.relative_to(project.state).as_posix(), rows=rows)


def _kept(store: str, places: list[SubjectPlace], reason: str) -> Receipt:
    rows = total(places)
    return Receipt(store=store, status="kept" if places else "nothing", rows=rows, reason=reason if places else "")
