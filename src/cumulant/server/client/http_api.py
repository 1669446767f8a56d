"""Calls of operations over HTTP: requests, results, errors of the same classes, jobs, and the stream of events.

A request that changes something carries a key of its own, so that it happens once although it is sent again after a
lost connection.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from itertools import takewhile
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import msgspec

from cumulant.core.errors import (
    ConflictError,
    CumulantError,
    EngineUnavailableError,
    LeaseHeldError,
    RequestError,
    StorageError,
    UsageError,
    error_from,
    missing_part,
    not_found,
)
from cumulant.core.events import Event
from cumulant.core.network.urls import check_token_url, server_address
from cumulant.core.progress import Progress, silent
from cumulant.server.client.caller import all_items, follow_job
from cumulant.server.client.event_follower import EventFollower, byte_lines
from cumulant.server.jobs import Job
from cumulant.server.operation import BYTES, MOST_UPLOAD, NO_PATH, NOTE, OTHER_PROJECT, Operation
from cumulant.server.operations import find_operation

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

#: times that a request is sent where nothing answers; seconds before the first repetition, which double
_TRIES, _DELAY = 4, 0.2
#: seconds before a job that begins is asked for again, which double
_JOB_BEGINS = 0.5
#: events of one page
_MOST_EVENTS = 1_000
#: for a file to be sent and read
_UPLOAD_SECONDS = 600.0


def _discard(sentence: str) -> None:
    del sentence


class HttpApi:
    """Operations of one project on a server."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        project: str = "",
        timeout: float = 60.0,
        note: Callable[[str], None] = _discard,
    ) -> None:
        """`project` may be left out where the server has one only; `note` is called when a stream of events is lost.

        Raises:
            UsageError: no token may be sent to the address; or the server has several projects and none is named.
            EngineUnavailableError: the server does not answer, or is none of Cumulant.
            CredentialsError: it does not know the token.
        """
        url = server_address(url)
        check_token_url(url)
        try:
            import httpx
        except ModuleNotFoundError:
            raise missing_part("httpx", "console") from None
        headers = {"authorization": f"Bearer {token}"} if token else {}
        # Over plain HTTP a proxy of the environment would read the token on its way to this machine itself.
        proxies = url.lower().startswith("https:")
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=proxies)
        self._timeout, self._note = timeout, note
        self.url = url
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
        if not operation.long:
            return self._decode(self._send_operation(operation, arguments), operation.types.get("return", Any))
        key, job = uuid.uuid4().hex, None
        try:
            job = self._begin(operation, arguments, key)
            ended = self.follow(job.id, progress)
        except KeyboardInterrupt:
            self._cancel(operation, arguments, key, job)
            raise
        return msgspec.convert(ended.result, operation.types.get("return", Any), strict=False)

    def _begin(self, operation: Operation, arguments: Mapping[str, Any], key: str) -> Job:
        job: Job = self._decode(self._send_operation(operation, arguments, key=key), Job)
        return job

    def _cancel(self, operation: Operation, arguments: Mapping[str, Any], key: str, job: Job | None) -> None:
        """Cancel a job, also one whose name has not arrived: the same key has the same answer, and begins no other.

        A note tells how the job ended, or the command that shows it where that is unknown.
        """
        status = ""
        try:
            for number in range(_TRIES):
                if job is None:
                    with suppress(LeaseHeldError):  # it begins
                        job = self._begin(operation, arguments, key)
                        break
                    time.sleep(_JOB_BEGINS * 2**number)
            if job is not None:
                with suppress(ConflictError):  # it has ended meanwhile
                    self.call("jobs.cancel", job=job.id)
                    status = "cancelled"
                status = status or str(self.call("jobs.show", job=job.id).status)
        except CumulantError:  # the server is away
            pass
        finally:  # also where the user does not wait
            place = f"--project {self.project} --server {self.url}"
            if job is None:
                self._note(f"whether its job began is not known: `cumulant jobs list {place}` shows it")
            elif status == "cancelled":
                self._note(f"job {job.id} is cancelled")
            elif status and status != "running":
                self._note(f"job {job.id} ended before it could be cancelled: {status}")
            else:
                self._note(f"job {job.id} may still run: `cumulant jobs show {job.id} {place}` shows it")

    def submit(self, name: str, /, **arguments: Any) -> Job:
        """Begin a long operation, and return its job: it continues whether anybody follows it or not.

        An interrupt before the job has a name cancels it.
        """
        operation, key = find_operation(name), uuid.uuid4().hex
        try:
            return self._begin(operation, arguments, key)
        except KeyboardInterrupt:
            self._cancel(operation, arguments, key, None)
            raise

    def follow(self, job: str, progress: Progress = silent) -> Job:
        """Wait until a job has succeeded. Raises as `follow_job`."""
        return follow_job(self, job, progress)

    def pages(self, name: str, /, **arguments: Any) -> Iterator[Any]:
        """All items of a list, page by page."""
        return all_items(self, name, arguments)

    def lines(self, name: str, /, **arguments: Any) -> Iterator[bytes]:
        """The lines of an operation whose result is a `LineStream`, as they come.

        Raises:
            CumulantError: that of the operation; EngineUnavailableError where the lines end before their end.
        """
        import httpx

        operation = find_operation(name)
        bound = operation.bind(arguments)
        try:
            path, query = self._place(operation, bound, arguments)
            with self._http.stream("GET", path, params=query) as response:
                if response.is_error:
                    response.read()
                    raise _error_of(response, self.url)
                if note := response.headers.get(NOTE):
                    self._note(unquote(note))
                yield from byte_lines(response.iter_bytes())
        except httpx.TransportError as error:
            text = f"the server ended the connection before the end: {error}"
            raise EngineUnavailableError(text, subject=self.url, hint="run it again") from None

    def events(
        self, *, after: int | None = None, kinds: tuple[str, ...] = (), seconds: float | None = None
    ) -> Iterator[Event]:
        """Events as they happen, for ever or for so long, each once; a lost connection continues where it ended."""
        head = self._head() if after is None or seconds is not None else 0
        first = head if after is None else after
        follower = EventFollower(
            self._http,
            self._path("/events/stream"),
            error_of=lambda response: _error_of(response, self.url),
            note=self._note,
        )
        if seconds is None:
            yield from follower.follow(first, kinds, None)
            return
        until = time.monotonic() + seconds
        # What has happened before is no matter of time: all of it, as in the project itself.
        past = takewhile(lambda event: event.seq > first, self.pages("events.list", kind=kinds, limit=_MOST_EVENTS))
        yield from [event for event in past if event.seq <= head][::-1]
        yield from follower.follow(max(first, head), kinds, until)

    def environment(self) -> str:
        """The environment that the server has the project in. Raises NotFoundError."""
        environments = {each["name"]: str(each["environment"]) for each in self._projects()}
        if self.project not in environments:
            raise not_found("project", self.project, environments)
        return environments[self.project]

    def _head(self) -> int:
        newest: Event | None = next(self.pages("events.list", limit=1), None)
        return 0 if newest is None else newest.seq

    def _projects(self) -> list[dict[str, Any]]:
        projects: list[dict[str, Any]] = self._decode(self._send("GET", "/v1/projects"), list[dict[str, Any]])
        return projects

    def _only_project(self) -> str:
        names = [each["name"] for each in self._projects()]
        if len(names) != 1:
            raise UsageError("which project is not said", hint=f"name one: {', '.join(names) or 'the server has none'}")
        return str(names[0])

    def _path(self, path: str) -> str:
        return f"/v1/projects/{_segment(self.project)}{path}"

    def _send_operation(
        self, operation: Operation, arguments: Mapping[str, Any], *, key: str | None = None
    ) -> httpx.Response:
        """Raises RequestError, before anything is sent, where the arguments do not fit, as the server would."""
        bound = operation.bind(arguments)
        path, query = self._place(operation, bound, arguments)
        if operation.uploads:
            return self._send_file(path, query, bound["upload"])
        body = bound.get("body")
        content = None if body is None else msgspec.json.encode(body)
        seconds = self._timeout + getattr(body, "within", 0.0)  # for which the operation itself may wait
        return self._send(operation.method, path, query, content, seconds=seconds, key=key)

    def _send_file(self, path: str, query: Mapping[str, Any], file: Path) -> httpx.Response:
        """Raises StorageError: the file cannot be read; UsageError: it is too large."""
        try:
            with file.open("rb") as stream:
                content = stream.read(MOST_UPLOAD + 1)
        except OSError as error:
            raise StorageError(f"the file cannot be read: {error.strerror}", subject=str(file)) from None
        if len(content) > MOST_UPLOAD:
            text = f"the file is larger than {MOST_UPLOAD >> 20} MiB, which is the most that is sent"
            raise UsageError(text, subject=str(file), hint="divide it, or run the command on the server's machine")
        return self._send("POST", path, query, content, media=BYTES, seconds=_UPLOAD_SECONDS)

    def _place(
        self, operation: Operation, bound: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """Path and query of a call. Raises RequestError: a parameter cannot stand in a path."""
        names = {name: _segment(bound[name]) for name in operation.parameters}
        query: dict[str, Any] = {}
        if "query" in bound:
            values = msgspec.to_builtins(bound["query"])
            query = {name: values[name] for name in arguments if values.get(name) not in (None, "")}
        return self._path(operation.path.format(**names)), query

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        *,
        seconds: float | None = None,
        media: str = "application/json",
        key: str | None = None,
    ) -> httpx.Response:
        """`key`: of the same request, sent before."""
        import httpx

        headers = {} if method == "GET" else {"idempotency-key": key or uuid.uuid4().hex}
        if content is not None:
            headers["content-type"] = media
        timeout = self._timeout if seconds is None else seconds

        def send() -> httpx.Response:
            try:
                response = self._http.request(
                    method, path, params=query, content=content, headers=headers, timeout=timeout
                )
            except httpx.ReadTimeout:  # the server works on it: once more would double its work
                hint = "the server may still do it: look before you do it again"
                raise EngineUnavailableError(
                    f"the server has not answered within {timeout:g} s", subject=self.url, hint=hint
                ) from None
            except (httpx.ConnectError, httpx.ConnectTimeout):
                raise
            except httpx.TransportError as error:
                if media != BYTES:
                    raise
                # A large file is not sent again and again: the server may end each connection as too slow.
                raise EngineUnavailableError(
                    f"the connection ended while the file was sent: {error}",
                    subject=self.url,
                    hint="send it over a faster connection, or divide it; a file that did arrive is imported once",
                ) from None
            if response.is_error:
                raise _error_of(response, self.url)
            return response

        return _repeat(send, httpx.TransportError, self.url)

    def _decode(self, response: httpx.Response, kind: Any) -> Any:
        """The response as `kind`. Raises EngineUnavailableError: it is none of such a server."""
        try:
            return msgspec.json.decode(response.content, type=kind, strict=False)
        except msgspec.DecodeError:
            raise _foreign_answer(response, self.url) from None


def _segment(value: str) -> str:
    """A name as one segment of a path. Raises RequestError: the way there would change or lose it."""
    if value in ("", ".", ".."):
        hint = "an address cannot have it as a name; run the command on the server's machine"
        raise RequestError(f'"{value}" cannot be named in a request', subject=value, hint=hint)
    return quote(value, safe="@")


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
    if document["detail"] == OTHER_PROJECT:
        document["hint"] = f"check the project's name, or sign in to it: `cumulant login --server {url} --of NAME`"
    if document["detail"] == NO_PATH:
        document["hint"] = f"check the address {url}: it is that of `cumulant api`, without a path"
    return error_from(document | {"error": document["detail"]})


def _foreign_answer(response: httpx.Response, url: str) -> EngineUnavailableError:
    return EngineUnavailableError(
        f"the server answers HTTP {response.status_code}, and not as the API of this version does",
        subject=url,
        hint="check the address: it is that of `cumulant api`, without a path",
    )
