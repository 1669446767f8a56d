"""The client of a server over HTTP, which sends rows and returns its answers."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cumulant.core.errors import EngineUnavailableError, NotFoundError, RequestError, UsageError, not_found
from cumulant.core.network.http_client import HttpClient, NoResponseError
from cumulant.core.plan import DType, Field
from cumulant.core.progress import Progress, silent
from cumulant.core.servable import Answer
from cumulant.data.spec import DateFormat, NumberFormat, RuleSpec, SourceSpec
from cumulant.flows.data.tables import read_table

if TYPE_CHECKING:
    import polars as pl

_CHUNK = 500
_TIMEOUT = 60.0


class RemoteServer(NamedTuple):
    """Where a server is, and the token that it wants."""

    url: str
    token: str | None = None

    def get(self, path: str) -> bytes:
        """Raises as `post`."""
        return self._send("GET", path)

    def post(self, path: str, document: object) -> bytes:
        """The body of the answer.

        Raises:
            UsageError: that is no address of a server.
            RequestError: the server refuses the request.
            EngineUnavailableError: no server answers.
        """
        return self._send("POST", path, msgspec.json.encode(document))

    def _base(self) -> str:
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(
                f'"{self.url}" is no address of a server', subject=self.url, hint="write http://127.0.0.1:8080"
            )
        return self.url.rstrip("/")

    def _send(self, method: str, path: str, content: bytes | None = None) -> bytes:
        url = f"{self._base()}{path}"
        headers = {} if self.token is None else {"authorization": f"Bearer {self.token}"}
        if content is not None:
            headers["content-type"] = "application/json"
        try:
            response = HttpClient(seconds=_TIMEOUT, use_proxies=True).send(
                method, url, headers=headers, content=content
            )
        except NoResponseError as error:
            raise EngineUnavailableError(
                f"no server answers at {url}: {error.reason}", subject=url, hint="start one with `cumulant serve`"
            ) from None
        if response.ok:
            return response.body
        hint = "give the token: --token-file FILE, or CUMULANT_TOKEN" if response.status == 401 else None
        if 300 <= response.status < 400:  # not followed: it could take the token to another host
            hint = "write the address that it redirects to"
        text = response.body.decode(errors="replace")
        raise RequestError(f"the server refused the rows ({response.status}): {text}", subject=url, hint=hint)


class _Requested(msgspec.Struct):
    """A field or input in the card of a model."""

    name: str
    type: str = ""
    required: bool = True
    zone: str | None = None
    number_format: NumberFormat | None = None
    date_format: DateFormat | None = None


class _Card(msgspec.Struct):
    name: str
    request: tuple[_Requested, ...]
    task: str | None = None
    reasons: object = None


class _Listed(msgspec.Struct):
    models: tuple[_Card, ...]


def query_server(server: RemoteServer, model: str, file: Path, *, progress: Progress = silent) -> pl.DataFrame:
    """One answer a row of a file, from the server; its model card names what the model reads.

    `model` is the name of one that it serves; empty: the only one.

    Raises:
        NotFoundError: it does not serve such a model.
        RequestError: a required field is missing, a value is not of its type, or the server refuses a row.
        DataError: the file cannot be read.
        EngineUnavailableError: the server does not answer.
    """
    card = _card(server, model)
    rows = _rows(card, file, progress)
    others = "" if card.reasons is None else "?reasons=0"
    path = f"/v1/models/{urllib.parse.quote(card.name, safe='')}/predict{others}"
    if card.task is not None:
        return answers_frame(list(request_answers(server, path, rows, progress)))
    import polars as pl

    predictions: list[dict[str, Any]] = []
    for part in _request_parts(server, path, rows, progress):
        predictions += msgspec.json.decode(part)
    return pl.DataFrame(predictions, infer_schema_length=None)


def _card(server: RemoteServer, model: str) -> _Card:
    try:
        served = msgspec.json.decode(server.get("/v1/models"), type=_Listed).models
    except msgspec.DecodeError as error:
        raise EngineUnavailableError(f"{server.url} is no server of models: {error}", subject=server.url) from None
    names = list(dict.fromkeys(card.name for card in served))
    if not names:
        raise NotFoundError(f"{server.url} serves no model", subject=server.url)
    if not model and len(names) > 1:
        raise UsageError(f"{server.url} serves {', '.join(names)}", subject=server.url, hint="name one with --model")
    wanted = model or names[0]
    if wanted not in names:
        raise not_found("model on that server", wanted, names)
    return next(card for card in reversed(served) if card.name == wanted)


def _rows(card: _Card, file: Path, progress: Progress = silent) -> pl.DataFrame:
    """What the model reads of the file."""
    from cumulant.data.files.prediction_rows import prediction_spec
    from cumulant.flows.serving.batch.piece_scoring import refuse_lacking

    kinds = {field.name: field.type for field in card.request}
    fields = [
        Field(field.name, _dtype(kinds[field.name]), nullable=not field.required, zone=field.zone)
        for field in card.request
        if field.type
    ]
    rules = {
        field.name: RuleSpec(number_format=field.number_format, date_format=field.date_format) for field in card.request
    }
    declared = SourceSpec(rules=rules)
    rows = read_table(file, like=prediction_spec(declared, fields, str(file)), progress=progress)
    if fields:
        from cumulant.data.files.prediction_rows import as_fields

        return as_fields(rows, fields, rules=rules)
    refuse_lacking(list(kinds), rows.columns, hint=f"the model reads {', '.join(list(kinds)[:12])}")
    return rows.select(list(kinds))


def _dtype(kind: str) -> DType:
    return "float" if kind == "number" else msgspec.convert(kind, DType)


def request_answers(server: RemoteServer, path: str, rows: pl.DataFrame, progress: Progress) -> Iterator[Answer]:
    """Of a project's model, at the path where it answers plain rows."""
    for part in _request_parts(server, path, rows, progress):
        yield from msgspec.json.decode(part, type=list[Answer])


def _request_parts(server: RemoteServer, path: str, rows: pl.DataFrame, progress: Progress) -> Iterator[msgspec.Raw]:
    """The predictions, some rows at a time."""
    for start in range(0, len(rows), _CHUNK):
        part = [
            {k: (v.isoformat() if isinstance(v, (datetime, date)) else v) for k, v in row.items()}
            for row in rows.slice(start, _CHUNK).iter_rows(named=True)
        ]
        yield msgspec.json.decode(server.post(path, {"rows": part}), type=dict[str, msgspec.Raw])["predictions"]
        progress("waiting for the server", min(1.0, (start + _CHUNK) / len(rows)))


def answers_frame(answers: Sequence[Answer]) -> pl.DataFrame:
    """A table of answers, one a row."""
    import polars as pl

    columns: dict[str, list[object]] = {"prediction": [answer.prediction for answer in answers]}
    for name in ("probability", "probabilities", "state_age"):
        values = [getattr(answer, name) for answer in answers]
        if any(value is not None for value in values):
            columns[name] = values
    if any(answer.incomplete for answer in answers):
        columns["incomplete"] = [list(answer.incomplete) for answer in answers]
    return pl.DataFrame(columns)
