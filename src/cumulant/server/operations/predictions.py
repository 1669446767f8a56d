"""The prediction log."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from cumulant.core.structs import struct_from
from cumulant.flows.serving.predictions import (
    PredictionView,
    list_predictions,
    lost_predictions,
    place_of,
    prediction_log,
    show_prediction,
)
from cumulant.server.operation import ApiCall, ListPage, PageQuery, get, post
from cumulant.server.pages import bad_cursor, check_limit, decode_cursor, encode_cursor
from cumulant.serving.prediction_log.storage.log_reader import LogGap, LogPlace

#: above any moment in microseconds, and any number of a request or of its rows
_MOST = 1 << 53


class PredictionQuery(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model`: only of that model; `since`: only those that were answered since."""

    model: str = ""
    since: datetime | None = None


@get("/predictions", action="predictions.show")
def list_(call: ApiCall, query: PredictionQuery) -> ListPage[PredictionView]:
    """List predictions, newest first; personal values are keyed hashes."""
    call.check(personal=True)
    limit, before = check_limit(query.limit), _place(query.cursor)
    log = prediction_log(call.project, principal=call.principal)
    rows = list_predictions(log, model=query.model or None, since=query.since, limit=limit + 1, before=before)
    page = rows[:limit]
    return ListPage(page, encode_cursor(place_of(page[-1])) if len(rows) > limit else None)


def _place(cursor: str) -> LogPlace | None:
    match decode_cursor(cursor):
        case None:
            return None
        case (int(time), str(worker), int(sequence), int(row)) if all(0 <= n < _MOST for n in (time, sequence, row)):
            return time, worker, sequence, row
        case _:
            raise bad_cursor()


class UnloggedHour(msgspec.Struct, frozen=True, kw_only=True):
    hour: datetime
    arm: str
    requests: int


class LoggedByGateway(msgspec.Struct, frozen=True, kw_only=True):
    """Of the requests that the gateway's log has as answered until a moment, those that the prediction log lacks."""

    until: datetime
    compared: int
    unlogged: list[UnloggedHour]


class LogGaps(msgspec.Struct, frozen=True, kw_only=True):
    """`gaps`: by the numbers of the servers; `gateway`: null where no version was served behind a gateway."""

    gaps: list[LogGap]
    gateway: LoggedByGateway | None


@get("/predictions/gaps", action="predictions.show")
def gaps(call: ApiCall) -> LogGaps:
    """Show which answered requests are missing in the log."""
    from cumulant.flows.serving.unlogged_requests import compare_with_gateway

    lost = lost_predictions(prediction_log(call.project, principal=call.principal))
    compared = compare_with_gateway(call.project, principal=call.principal)
    return LogGaps(
        gaps=lost,
        gateway=None if compared is None else msgspec.convert(compared, LoggedByGateway, from_attributes=True),
    )


@get("/predictions/{request}", action="predictions.show")
def show(call: ApiCall, request: str) -> list[PredictionView]:
    """Show the rows of one request: input, answer, model and state."""
    call.check(personal=True)
    return show_prediction(prediction_log(call.project, principal=call.principal), request)


class ImportQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`name`: of the file, whose end shows its format; `part`: a column of it, as `id=request_id`, several times;
    `model` and `version`: where no column names them.
    """

    name: str
    part: tuple[str, ...] = ()
    model: str = ""
    version: str = "imported"


class ImportedPredictions(msgspec.Struct, frozen=True, kw_only=True):
    """`rows` came into the log; `refused` have no id, no time or no answer, or are of the future, as `future` of them.
    `again`: the file was imported before, and nothing was added.
    """

    content: str
    rows: int
    refused: int
    future: int
    again: bool


@post("/predictions/import", action="predictions.import")
def import_(call: ApiCall, query: ImportQuery, upload: Path) -> ImportedPredictions:
    """Bring predictions that were logged elsewhere into the log, each file once: the body is the file, up to 64 MiB."""
    from cumulant.flows.outcomes.labels import import_predictions  # loads polars

    columns = {part: column for part, _, column in (each.partition("=") for each in query.part)}
    imported = import_predictions(
        call.project, upload, columns, principal=call.principal, model=query.model or None, version=query.version
    )
    return struct_from(ImportedPredictions, imported)


OPERATIONS = (list_, gaps, import_, show)
