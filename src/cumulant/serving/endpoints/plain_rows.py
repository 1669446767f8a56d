"""`/v1/models/NAME/predict`: plain JSON rows in, one prediction per row out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from cumulant.core.errors import RequestError
from cumulant.core.servable import Answer
from cumulant.core.traffic import printable_id
from cumulant.servable.engine import Array
from cumulant.serving.endpoints.request_bodies import LARGE, decode_rows
from cumulant.serving.endpoints.scoring import Scoring, ScoringService
from cumulant.serving.gateway_headers import name_of
from cumulant.serving.http.messages import Request, Response, encode
from cumulant.serving.models.model import Model
from cumulant.serving.models.request_work import RequestWork
from cumulant.serving.protocol.json_body import decode_body, decode_json
from cumulant.serving.reasons.reasoning import read_reasons, read_reasons_query
from cumulant.serving.scheduling.job_queue import Demand

_WRAPPED = {"rows", "reasons"}
_EXPECTED = 'send the fields of one row: {"FIELD": VALUE, ...}; GET /v1/models/NAME lists them'


class PredictionsResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Response to several plain JSON rows, in their order."""

    model: str
    version: str
    request_id: str
    predictions: list[Any]
    #: columns that were ignored, and why
    warnings: tuple[str, ...] = ()
    #: the fallback that answered under overload: `cached`, `servable` or `constant`
    degraded: str = ""


def read(service: ScoringService, model: Model, request: Request) -> Scoring[Response]:
    """Scoring of one row, a list of rows, or `{"rows": [...], "reasons": N}`.

    Raises:
        HttpError: 413 for too many rows.
        RequestError: the body is none of these, or does not fit the model.
    """
    rows, single, reasons = _read_rows(request.body, model)
    work = model.from_rows(rows)
    if model.reasons is not None or reasons is not None or b"?" in request.target:
        work.reasons = read_reasons(model.reasons, read_reasons_query(request.target, reasons))
    headers = request.headers
    if service.marks is not None:  # the id of the gateway, or the one that the check of its token gave
        request_id = name_of(headers)
    elif b"x-request-id" in headers:
        request_id = printable_id(headers[b"x-request-id"]) or os.urandom(8).hex()
    else:
        request_id = os.urandom(8).hex()

    def finish(raw: Sequence[Array]) -> Response:
        answers = model.answers(work, raw)
        if single:
            return Response(200, encode(_single(answers[0], model, request_id, work)))
        several = PredictionsResponse(
            model=model.name,
            version=model.version,
            request_id=request_id,
            predictions=answers,
            warnings=work.warnings,
            degraded=work.fallback,
        )
        return Response(200, encode(several))

    return Scoring(work, Demand(client=request.client), finish, request_id)


def _read_rows(body: bytes, model: Model) -> tuple[list[object], bool, object]:
    """Rows of a body, whether it was one bare row, and the requested number of reasons."""
    wrapped = "rows" not in model.inputs
    decode = decode_json if len(body) <= LARGE else partial(decode_rows, wrapped=wrapped)
    value = decode_body(decode, body, expected=_EXPECTED)
    if isinstance(value, list):
        return value, False, None
    if wrapped and isinstance(value, dict) and "rows" in value and value.keys() <= _WRAPPED:
        if not isinstance(value["rows"], list):
            raise RequestError('"rows" must be a list of objects', subject="rows")
        return value["rows"], False, value.get("reasons")
    return [value], True, None


def _single(answer: Answer | dict[str, Any], model: Model, request_id: str, work: RequestWork) -> dict[str, Any]:
    fields = answer if isinstance(answer, dict) else msgspec.to_builtins(answer)
    document = {**fields, "model": model.name, "version": model.version, "request_id": request_id}
    if work.fallback:
        document["degraded"] = work.fallback
    return document | {"warnings": work.warnings} if work.warnings else document
