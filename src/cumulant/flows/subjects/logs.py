"""Logs of predictions, labels and exchanges: they hold keyed hashes of personal values, and are not rewritten yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from cumulant.flows.outcomes.outcome_logs import LABELS_LEASE, exclusive, logs_of
from cumulant.flows.subjects.places import Receipt, Subject, SubjectPlace, status_after, total
from cumulant.flows.traffic.clients import exchanges_of
from cumulant.ports.log import UNDATED, Log, PartInfo

if TYPE_CHECKING:
    import polars as pl

    from cumulant.flows.ledger.run_context import Context

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
    """Parts of labels and joined rows that name a prediction by the subject."""
    import polars as pl

    logs, places = logs_of(context.project), []
    for name, log in (("labels", logs.labels), ("joined", logs.joined)):
        for part in log.parts(UNDATED):
            with suppress(FileNotFoundError), log.open(part) as stream:  # merged meanwhile
                count = _count_named(pl.scan_parquet(stream), subject)
                places += [SubjectPlace(store=LABELS, where=f"{name}/{part.name}", rows=count)] if count else []
    return places


def _count_named(rows: pl.LazyFrame, subject: Subject) -> int:
    import polars as pl

    schema = rows.collect_schema()
    named = [
        pl.col(name).str.contains(msgspec.json.encode(text).decode(), literal=True)
        for name in _KEYS
        if schema.get(name) == pl.String
        for text in subject.texts
    ]
    if not named:
        return 0
    return int(rows.select(pl.any_horizontal(named).fill_null(value=False).sum()).collect().item())


def keep_labels(context: Context, subject: Subject) -> Receipt:
    return _kept(LABELS, find_labels(context, subject), "labels and joined rows have no retention yet")


def find_inbox(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Posts of labels that wait for ingestion; their keys are as they were posted."""
    return [
        SubjectPlace(store=INBOX, where=part.name, rows=len(lines) - len(others))
        for part, lines, others in _inbox(logs_of(context.project).inbox, subject)
    ]


def erase_inbox(context: Context, subject: Subject) -> Receipt:
    """Delete posts that name the subject; the labels of others in them are posted again."""
    places, inbox = find_inbox(context, subject), logs_of(context.project).inbox
    if places:
        with exclusive(context.project, LABELS_LEASE):  # no ingestion takes a post meanwhile
            for part, _, others in _inbox(inbox, subject):
                if others:
                    with inbox.append(msgspec.structs.replace(part, life=f"{part.life}.erased")) as stream:
                        stream.write(b"".join(others))
                inbox.delete([part])
    remaining = find_inbox(context, subject)
    return Receipt(
        store=INBOX,
        status=status_after(places, remaining),
        rows=total(places),
        rewritten=tuple(place.where for place in places),
        reason="run this again: labels were posted meanwhile" if remaining else "",
    )


def _inbox(inbox: Log, subject: Subject) -> Iterator[tuple[PartInfo, list[bytes], list[bytes]]]:
    """Each post that names the subject: its lines, and those of others."""
    for part in inbox.parts(UNDATED):
        with suppress(FileNotFoundError), inbox.open(part) as stream:  # ingested meanwhile
            lines = stream.read().splitlines(keepends=True)
            others = [line for line in lines if not subject.is_in(_row(line))]
            if len(others) < len(lines):
                yield part, lines, others


def _row(line: bytes) -> dict[str, object]:
    try:
        row = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return {}
    return row if isinstance(row, dict) else {}


def find_exchanges(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Requests at the gateway whose key is the subject's hash."""
    source, cursor, count = exchanges_of(context.project), "", 0
    while True:
        exchanges, cursor = source.exchanges(cursor, limit=_PAGE)
        count += sum(exchange.key in subject.texts for exchange in exchanges)
        if len(exchanges) < _PAGE:
            return [SubjectPlace(store=EXCHANGES, where="exchanges", rows=count)] if count else []


def keep_exchanges(context: Context, subject: Subject) -> Receipt:
    reason = "it holds the hash only; the oldest files go when new ones are written"
    return _kept(EXCHANGES, find_exchanges(context, subject), reason)


def _kept(store: str, places: list[SubjectPlace], reason: str) -> Receipt:
    rows = total(places)
    return Receipt(store=store, status="kept" if places else "nothing", rows=rows, reason=reason if places else "")
