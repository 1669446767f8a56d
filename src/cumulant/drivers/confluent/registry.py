"""Schemas by the REST API of Confluent's registry, which Karapace, Redpanda and Apicurio have too."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import msgspec

from cumulant.core.errors import (
    CredentialsError,
    CumulantError,
    DataError,
    EngineUnavailableError,
    NotFoundError,
    StorageError,
    UsageError,
)
from cumulant.core.network.http_client import HttpClient, HttpResponse, NoResponseError
from cumulant.drivers.confluent.location import parse_registry_url
from cumulant.ports.secrets import Secrets
from cumulant.ports.streams import RegisteredSchema, SchemaKind

#: seconds for the connection and for the whole answer
_CONNECT, _ANSWER = 5.0, 15.0
#: the most bytes of an answer, and the most schemas that one names, directly or not
_MOST_BYTES, _MOST_IMPORTS = 2 << 20, 200
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
#: error codes of the API: no such subject, version or schema. Another 404 comes from another server.
_ABSENT = frozenset({40401, 40402, 40403})
_ACCEPT = "application/vnd.schemaregistry.v1+json, application/json"


class _Reference(msgspec.Struct, frozen=True):
    name: str
    subject: str
    version: int


class _Answer(msgspec.Struct, frozen=True):
    """A schema as the API has it; Avro is not named."""

    schema: str
    schema_type: str | None = msgspec.field(name="schemaType", default=None)
    references: list[_Reference] | None = None


class _Fault(msgspec.Struct, frozen=True):
    error_code: int = 0


class ConfluentSchemas:
    """Asks one registry. Answers are not kept here: a schema is asked for once by each reader."""

    def __init__(self, url: str, *, secrets: Secrets | None = None) -> None:
        self._address, self._secrets = parse_registry_url(url), secrets
        self._http = HttpClient(
            seconds=_CONNECT,
            total_seconds=_ANSWER,
            max_bytes=_MOST_BYTES,
            authority=self._address.authority,
            use_proxies=True,
        )

    def schema(self, number: int, kind: SchemaKind) -> RegisteredSchema:
        answer = self._ask(f"/schemas/ids/{number}", kind)
        imports: dict[str, str] = {}
        self._add_imports(answer, kind, imports, set())
        return RegisteredSchema(kind=_kind(answer), text=answer.schema, imports=tuple(imports.items()))

    def _add_imports(
        self, answer: _Answer, kind: SchemaKind, imports: dict[str, str], places: set[tuple[str, int]]
    ) -> None:
        """Add what the schema names, and before each what that names itself. A circle ends where it closes."""
        for reference in answer.references or ():
            place = (reference.subject, reference.version)
            if reference.name in imports or place in places:
                continue
            places.add(place)
            if len(places) > _MOST_IMPORTS:
                raise DataError(f"a schema names more than {_MOST_IMPORTS} others", subject=reference.name)
            named = self._ask(f"/subjects/{quote(reference.subject, safe='')}/versions/{reference.version}", kind)
            self._add_imports(named, kind, imports, places)
            imports[reference.name] = named.schema

    def _ask(self, path: str, kind: SchemaKind) -> _Answer:
        url = self._address.url
        option = "?format=serialized" if kind == "protobuf" else ""
        try:
            response = self._http.get(f"{url}{path}{option}", self._headers())
        except NoResponseError as error:
            raise EngineUnavailableError(
                f"the schema registry does not answer: {error.reason}",
                subject=url,
                hint="check its address, the network and its load",
            ) from None
        if not response.ok:
            raise _refusal(response, url, path)
        if len(response.body) >= _MOST_BYTES:
            raise DataError(f"the schema at {path} is larger than {_MOST_BYTES >> 20} MiB", subject=url)
        try:
            return msgspec.json.decode(response.body, type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise _no_registry(url, path) from None

    def _headers(self) -> dict[str, str]:
        headers = {"accept": _ACCEPT}
        if self._address.user is not None and self._address.secret is not None:
            if self._secrets is None:
                raise UsageError("the password of the schema registry is a secret, and no store of secrets is given")
            pair = f"{self._address.user}:{self._secrets.get(self._address.secret)}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return headers


def _kind(answer: _Answer) -> str:
    return (answer.schema_type or "AVRO").lower()


def _refusal(response: HttpResponse, url: str, path: str) -> CumulantError:
    status = response.status
    if status in (401, 403):
        hint = "check the user, its secret and its rights"
        return CredentialsError(f"the schema registry refuses this user ({status})", subject=url, hint=hint)
    if status == 404 and _error_code(response.body) in _ABSENT:
        return NotFoundError(f"the schema registry has nothing at {path}", subject=url)
    if status in _LATER:
        return EngineUnavailableError(f"the schema registry answers {status}", subject=url, hint="see its log")
    return _no_registry(url, f"{path} with {status}")


def _error_code(body: bytes) -> int:
    try:
        fault: Any = msgspec.json.decode(body, type=_Fault)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0
    return int(fault.error_code)


def _no_registry(url: str, what: str) -> StorageError:
    hint = "check that the address leads to a registry with the API of Confluent's"
    return StorageError(f"what is at {url} does not answer as a schema registry: {what}", subject=url, hint=hint)
