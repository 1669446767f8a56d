"""Logs of predictions, labels, joined rows and posts: parts are replaced by ones without the subject's rows.

Exchanges of gateways have no rows of requests. They hold the keyed hash of the release's key, and names of requests,
which callers may have chosen; both are emptied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.core.errors import LeaseHeldError
from cumulant.flows.outcomes.label_schema import schema_of
from cumulant.flows.outcomes.outcome_logs import LABELS_LEASE, exclusive, logs_of
from cumulant.flows.subjects.places import Receipt, Subject, SubjectPlace, erased_receipt
from cumulant.flows.traffic.clients import exchanges_of
from cumulant.ports.log import UNDATED, Log, PartInfo

if TYPE_CHECKING:
    from cumulant.flows.ledger.run_context import Context
    from cumulant.outcomes.erasure import PartRows
    from cumulant.project.project import Project

PREDICTIONS, LABELS, INBOX, EXCHANGES = "prediction log", "labels", "label inbox", "gateway log"
_PAGE = 100_000
#: seconds for which an erasure waits until another process has ended the maintenance of the prediction log
_PATIENCE, _POLL = 30.0, 0.2


class _SubjectRows(NamedTuple):
    """What the logs hold of a subject; labels and joined rows are found by the predictions."""

    predictions: list[PartRows]
    labels: list[PartRows]
    joined: list[PartRows]


def find_predictions(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Parts of the log with requests of the subject."""
    return _places(PREDICTIONS, "", _predictions(context.project, subject))


def erase_predictions(context: Context, subject: Subject) -> Receipt:
    """Empty the subject's rows, after what was joined with them meanwhile."""
    return _erase(context, subject, PREDICTIONS, find_predictions)


def find_labels(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Parts of labels and joined rows of the subject's predictions, and labels that name one by the subject."""
    logged = _subject_rows(context.project, subject)
    return _places(LABELS, "labels/", logged.labels) + _places(LABELS, "joined/", logged.joined)


def erase_labels(context: Context, subject: Subject) -> Receipt:
    """Delete these rows; the predictions by which they are found are still there."""
    return _erase(context, subject, LABELS, find_labels)


def _erase(
    context: Context, subject: Subject, store: str, find: Callable[[Context, Subject], list[SubjectPlace]]
) -> Receipt:
    from cumulant.outcomes import erasure

    places, project = find(context, subject), context.project
    if places:
        with exclusive(project, LABELS_LEASE):  # nothing is joined or merged meanwhile
            logged, logs = _subject_rows(project, subject), logs_of(project)
            erasure.erase_labels(logs, logged.labels)
            erasure.erase_joined(logs, erasure.all_rows(logged.predictions), logged.joined)
            if store == PREDICTIONS:
                with _maintained(project.log()) as mine:
                    if mine:
                        erasure.erase_predictions(project.log(), _predictions(project, subject))
    remaining = find(context, subject)
    return erased_receipt(store, places, remaining, "rows are merged or came meanwhile: run this again")


@contextmanager
def _maintained(log: Log) -> Iterator[bool]:
    """The lease of the log's maintenance; false where another process has had it all the time."""
    until = time.monotonic() + _PATIENCE
    while True:
        with log.maintenance() as mine:
            if mine or time.monotonic() >= until:
                yield mine
                return
        time.sleep(_POLL)


def _predictions(project: Project, subject: Subject) -> list[PartRows]:
    from cumulant.outcomes import erasure

    texts = [msgspec.json.encode(text).decode()[1:-1] for text in subject.texts]
    return list(erasure.find_predictions(project.log(), erasure.SubjectRequests(texts, subject.is_in)))


def _subject_rows(project: Project, subject: Subject) -> _SubjectRows:
    from cumulant.outcomes import erasure

    predictions, key, logs = _predictions(project, subject), schema_of(project).key, logs_of(project)
    rows = erasure.all_rows(predictions)
    names = [field.name for field in key]
    labels = erasure.find_labels(logs, rows, key, lambda text: subject.is_in_key(text, names))
    return _SubjectRows(predictions, list(labels), list(erasure.find_joined(logs, rows)))


def _places(store: str, prefix: str, parts: list[PartRows]) -> list[SubjectPlace]:
    return [SubjectPlace(store=store, where=f"{prefix}{rows.part.key}", rows=rows.rows.height) for rows in parts]


def find_inbox(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Posts of labels that wait for ingestion."""
    return [
        SubjectPlace(store=INBOX, where=part.name, rows=len(lines) - len(others))
        for part, lines, others in _inbox(logs_of(context.project).inbox, subject)
    ]


def erase_inbox(context: Context, subject: Subject) -> Receipt:
    """Take the subject's labels out of posts that wait."""
    from cumulant.outcomes.labels.ingest import delete_ingested_posts

    places, inbox = find_inbox(context, subject), logs_of(context.project).inbox
    if places:
        with exclusive(context.project, LABELS_LEASE):  # no ingestion takes a post meanwhile
            delete_ingested_posts(logs_of(context.project))  # an identity of what is left would be another one
            for part, _, others in _inbox(inbox, subject):
                if not others:
                    inbox.delete([part])
                    continue
                with inbox.replace(part) as stream:
                    stream.write(b"".join(others))
    remaining = find_inbox(context, subject)
    pending = "run this again: labels were posted meanwhile"
    return erased_receipt(INBOX, places, remaining, pending)


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
    """Requests at the gateway whose key is the subject's hash, and those of its predictions."""
    source, count = exchanges_of(context.project), 0
    exchanges, cursor = source.exchanges(limit=_PAGE)
    requests = _requests(context.project, subject) if exchanges else frozenset[str]()
    while exchanges:
        count += sum(exchange.names(subject.texts, requests) for exchange in exchanges)
        exchanges, cursor = source.exchanges(cursor, limit=_PAGE)
    return [SubjectPlace(store=EXCHANGES, where="exchanges", rows=count)] if count else []


def erase_exchanges(context: Context, subject: Subject) -> Receipt:
    """Empty key and names of these requests; the predictions by which they are found are still there."""
    places, source = find_exchanges(context, subject), exchanges_of(context.project)
    if places:
        requests, until = _requests(context.project, subject), time.monotonic() + _PATIENCE
        while True:
            try:
                source.erase_names(subject.texts, requests)
                break
            except LeaseHeldError:
                if time.monotonic() >= until:
                    break
            time.sleep(_POLL)
    remaining = find_exchanges(context, subject)
    pending = "run this again: another process maintains the log, or requests came meanwhile"
    return erased_receipt(EXCHANGES, places, remaining, pending)


def _requests(project: Project, subject: Subject) -> frozenset[str]:
    """The names of the requests of the subject's predictions."""
    from cumulant.outcomes import erasure

    return frozenset(erasure.all_rows(_predictions(project, subject))["id"])
