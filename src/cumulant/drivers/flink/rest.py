"""Requests to the REST interfaces of Flink: its SQL gateway, and its JobManager."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cumulant.core.errors import (
    CredentialsError,
    CumulantError,
    DataError,
    EngineUnavailableError,
    NotFoundError,
    StorageError,
)
from cumulant.core.network.hosts import is_loopback
from cumulant.core.network.http_client import HttpClient, HttpResponse, NoResponseError

#: seconds for the connection and each part of an answer: a gateway plans a statement while others wait
_CONNECT, _ANSWER = 30.0, 120.0
_MOST_BYTES = 16 << 20
_LATER = frozenset({408, 425, 429, 502, 503, 504})
#: characters of an error of the engine that are shown
_SHOWN = 400


class FlinkRest:
    """One server, `base` without a slash at the end; `what`: its name in messages."""

    def __init__(self, base: str, what: str, *, headers: Mapping[str, str], authority: str | None) -> None:
        self._base, self._what, self._headers = base, what, dict(headers)
        # what is sent to this machine may have a password that no proxy may read
        outside = not is_loopback(urlsplit(base).hostname or "")
        self._http = HttpClient(
            seconds=_CONNECT, total_seconds=_ANSWER, max_bytes=_MOST_BYTES, authority=authority, use_proxies=outside
        )

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The answer, which is JSON.

        Raises:
            DataError: the engine refuses, in its own words; otherwise as the port `stream_engine`.
            NotFoundError: it has nothing there.
        """
        headers = {"content-type": "application/json", **self._headers}
        content = None if body is None else msgspec.json.encode(body)
        place = urlsplit(self._base).netloc
        try:
            response = self._http.send(method, f"{self._base}{path}", headers=headers, content=content)
        except NoResponseError as error:
            raise EngineUnavailableError(
                f"{self._what} does not answer at {place}: {error.reason}",
                subject="stream_engine",
                hint="start it, or check the URL",
            ) from None
        try:
            answer = msgspec.json.decode(response.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            answer = None
        if response.ok and isinstance(answer, dict):
            return answer
        raise self._fault(response, answer, place)

    def _fault(self, response: HttpResponse, answer: object, place: str) -> CumulantError:
        status = response.status
        if status in (401, 403):
            hint = "check the secret that `token` names"
            return CredentialsError(f"{self._what} refuses the token ({status})", subject="stream_engine", hint=hint)
        if status in _LATER:
            text = f"{self._what} answers {status} at {place}"
            return EngineUnavailableError(text, subject="stream_engine", hint="see its log")
        errors = answer.get("errors") if isinstance(answer, dict) else None
        if not isinstance(errors, list):
            hint = "check that the port is that of the REST interface"
            text = f"what is at {place} does not answer as {self._what}"
            return StorageError(text, subject="stream_engine", hint=hint)
        text = f"Flink refuses: {_cause(errors)}"
        kind = NotFoundError if status == 404 else DataError
        return kind(text, subject="stream_engine", hint="see the log of its gateway")


def _cause(errors: list[Any]) -> str:
    """The innermost cause, which the engine writes last of a stack of them."""
    lines = [line for text in errors for line in str(text).splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return ((causes or lines or ["no reason"])[-1])[:_SHOWN]
