"""Calls of operations over HTTP: requests, results, errors of the same classes, jobs, and the stream of events.

A request that changes something carries a key of its own, so that it happens once although it is sent again after a
lost connection.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from cumulant.core.errors import (
    CumulantError,
    EngineUnavailableError,
    StepCancelledError,
    UsageError,
    error_from,
    missing_part,
    not_found,
)
from cumulant.core.events import Event
from cumulant.core.network.urls import check_token_url
from cumulant.core.progress import Progress, silent
from cumulant.server.client.caller import all_items
from cumulant.server.jobs import Job
from cumulant.server.operation import Operation
from cumulant.server.operations import find_operation

if TYPE_CHECKING:
    import httpx

#: times that a request is sent where nothing answers; seconds before the first repetition, which double
_TRIES, _DELAY = 4, 0.2
_JOB_SECONDS = 0.5
#: seconds without a byte of a stream, whose server sends a comment more often, until it is opened again
_SILENCE = 60.0


class HttpApi:
    """Operations of one project on a server."""

    def __init__(self, url: str, *, token: str = "", project: str = "", timeout: float = 60.0) -> None:
        """`project` may be left out where the server has one only.

        Raises:
            UsageError: no token may be sent to the address; or the server has several projects and none is named.
            EngineUnavailableError: the server does not answer, or is none of Cumulant.
            CredentialsError: it does not know the token.
        """
        check_token_url(url)
        try:
            import httpx
        except ModuleNotFoundError:
            raise missing_part("httpx", "console") from None
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)
        self.url = url.rstrip("/")
        try:
            self.project = project or self._only_project()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._http.close()

    def call(self, name: str, /, *, progress: Progress = silent, **arguments: Any) -> Any:
        """The result of the operation `name`, of its declared type; a long one is followed until it has ended.

        Path parameters are keywords, and so are the fields of the query and of the body.

        Raises:
            CumulantError: that of the operation; EngineUnavailableError where the server does not answer.
        """
        operation = find_operation(name)
        response = self._send_operation(operation, arguments)
        if not operation.long:
            return msgspec.json.decode(response.content, type=operation.types.get("return", Any), strict=False)
        job = msgspec.json.decode(response.content, type=Job)
        try:
            ended = self.follow(job.id, progress)
        except KeyboardInterrupt:
            self.call("jobs.cancel", job=job.id)
            raise
        return msgspec.convert(ended.result, operation.types.get("return", Any), strict=False)

    def submit(self, name: str, /, **arguments: Any) -> Job:
        """Begin a long operation, and return its job."""
        return msgspec.json.decode(self._send_operation(find_operation(name), arguments).content, type=Job)

    def follow(self, job: str, progress: Progress = silent) -> Job:
        """Wait until a job has succeeded.

        Raises:
            CumulantError: its error. StepCancelledError: it was cancelled, or its server ended.
        """
        while True:
            current: Job = self.call("jobs.show", job=job)
            progress(current.step, current.share)
            if current.status == "succeeded":
                return current
            if current.status in ("cancelled", "lost"):
                raise StepCancelledError(f"job {job} is {current.status}", subject=job)
            if current.status == "failed":
                raise error_from(current.error or {})
            time.sleep(_JOB_SECONDS)

    def pages(self, name: str, /, **arguments: Any) -> Iterator[Any]:
        """All items of a list, page by page."""
        return all_items(self, name, arguments)

    def events(self, *, after: int | None = None, kinds: tuple[str, ...] = ()) -> Iterator[Event]:
        """Events as they happen, for ever, each once; a lost connection is opened again where it ended."""
        import httpx

        query: dict[str, Any] = {"kind": list(kinds)} | ({} if after is None else {"after": after})
        last, timeout = "", httpx.Timeout(30.0, read=_SILENCE)
        while True:
            headers = {"last-event-id": last} if last else {}
            try:
                with self._http.stream(
                    "GET", self._path("/events/stream"), params=query, headers=headers, timeout=timeout
                ) as response:
                    if response.is_error:
                        response.read()
                        raise _error_of(response, self.url)
                    for event in _events(response.iter_lines()):
                        last = str(event.seq)
                        yield event
            except httpx.TransportError:
                time.sleep(1.0)

    def environment(self) -> str:
        """The environment that the server has the project in. Raises NotFoundError."""
        environments = {each["name"]: str(each["environment"]) for each in self._projects()}
        if self.project not in environments:
            raise not_found("project", self.project, environments)
        return environments[self.project]

    def _projects(self) -> list[dict[str, Any]]:
        response = self._send("GET", "/v1/projects")
        try:
            return msgspec.json.decode(response.content, type=list[dict[str, Any]])
        except msgspec.DecodeError:
            raise _foreign_answer(response, self.url) from None

    def _only_project(self) -> str:
        names = [each["name"] for each in self._projects()]
        if len(names) != 1:
            raise UsageError("which project is not said", hint=f"name one: {', '.join(names) or 'the server has none'}")
        return str(names[0])

    def _path(self, path: str) -> str:
        return f"/v1/projects/{quote(self.project, safe='')}{path}"

    def _send_operation(self, operation: Operation, arguments: Mapping[str, Any]) -> httpx.Response:
        rest = dict(arguments)
        names = {name: quote(str(rest.pop(name)), safe="@") for name in operation.parameters}
        kind = operation.types.get("body")
        content = None if kind is None else msgspec.json.encode(msgspec.convert(msgspec.to_builtins(rest), kind))
        query = {name: value for name, value in rest.items() if kind is None and value not in (None, "")}
        return self._send(operation.method, self._path(operation.path.format(**names)), query, content)

    def _send(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, content: bytes | None = None
    ) -> httpx.Response:
        import httpx

        headers = {} if method == "GET" else {"idempotency-key": uuid.uuid4().hex}
        if content is not None:
            headers["content-type"] = "application/json"

        def send() -> httpx.Response:
            response = self._http.request(method, path, params=query, content=content, headers=headers)
            if response.is_error:
                raise _error_of(response, self.url)
            return response

        return _repeat(send, httpx.TransportError, self.url)


def _repeat(send: Callable[[], httpx.Response], failure: type[Exception], url: str) -> httpx.Response:
    for number in range(_TRIES):
        try:
            return send()
        except failure as error:
            if number + 1 == _TRIES:
                raise EngineUnavailableError(
                    f"the server does not answer: {error}", subject=url, hint="`cumulant api` starts one"
                ) from None
        time.sleep(_DELAY * 2**number * random.uniform(0.5, 1.5))  # noqa: S311 - spreads repetitions
    raise AssertionError


def _error_of(response: httpx.Response, url: str) -> CumulantError:
    """The error that a problem document names, of its own class; without one, a proxy or another server answered."""
    try:
        document = msgspec.json.decode(response.content, type=dict[str, Any])
    except msgspec.DecodeError:
        document = {}
    if "detail" not in document:
        return _foreign_answer(response, url)
    if response.status_code == HTTPStatus.UNAUTHORIZED:  # the server's hint names a header, which no caller writes here
        document["hint"] = f"`cumulant login --server {url}`, or set CUMULANT_API_TOKEN (`cumulant token create NAME`)"
    return error_from(document | {"error": document["detail"]})


def _foreign_answer(response: httpx.Response, url: str) -> EngineUnavailableError:
    return EngineUnavailableError(
        f"the server answers HTTP {response.status_code}, and not as the API does",
        subject=url,
        hint="check the address: it is that of `cumulant api`, without a path",
    )


def _events(lines: Iterator[str]) -> Iterator[Event]:
    for line in lines:
        if line.startswith("data: "):
            yield msgspec.json.decode(line.removeprefix("data: ").encode(), type=Event)
