"""Events of a server as they happen: over server-sent events, each once, however often the connection is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.events import Event

if TYPE_CHECKING:
    import httpx

    from cumulant.core.errors import CumulantError

#: seconds without a byte of a stream, whose server sends a comment more often, until it is opened again
_SILENCE = 60.0
#: the same where following ends after some time
_SHORT_SILENCE = 5.0
#: seconds before a lost or ended stream is opened again
_PAUSE = 1.0
#: what a server that restarts, its proxy, or one with too many streams answers
_PASSING = frozenset({429, 502, 503, 504})


class EventFollower:
    """The events of one project after `seq`. `error_of`: what an answer without a stream means."""

    def __init__(
        self,
        http: httpx.Client,
        path: str,
        *,
        error_of: Callable[[httpx.Response], CumulantError],
        note: Callable[[str], None],
    ) -> None:
        self._http, self._path, self._error_of, self._note = http, path, error_of, note
        self._lost = False

    def follow(self, seq: int, kinds: tuple[str, ...], until: float | None) -> Iterator[Event]:
        """Events after `seq` as they happen, until that moment of the monotonic clock, or for ever.

        Raises:
            CumulantError: the server refuses the stream.
        """
        import httpx

        last = seq
        while True:
            remaining = None if until is None else until - time.monotonic()
            if remaining is not None and remaining <= 0:
                return
            silence = _SILENCE if remaining is None else min(_SHORT_SILENCE, remaining)
            try:
                for event in self._read(last, kinds, silence):
                    last = event.seq
                    yield event
                    if until is not None and until - time.monotonic() < silence - 1:
                        break  # a read must not wait beyond the end
                else:
                    _pause(until)
            except httpx.ReadTimeout:
                continue
            except httpx.TransportError as error:
                if not self._lost:
                    self._note(f"the connection is lost ({error}); it is opened again, and no event is missed")
                self._lost = True
                _pause(until)

    def _read(self, last: int, kinds: tuple[str, ...], silence: float) -> Iterator[Event]:
        import httpx

        query: dict[str, Any] = {"kind": list(kinds), "after": last}
        headers, timeout = {"last-event-id": str(last)}, httpx.Timeout(30.0, read=silence)
        with self._http.stream("GET", self._path, params=query, headers=headers, timeout=timeout) as response:
            if response.status_code in _PASSING:
                raise httpx.RemoteProtocolError(f"the server answers HTTP {response.status_code}")
            if response.is_error:
                response.read()
                raise self._error_of(response)
            self._lost = False
            for line in byte_lines(response.iter_bytes()):
                if line.startswith(b"data: "):
                    yield msgspec.json.decode(line.removeprefix(b"data: "), type=Event)


def _pause(until: float | None) -> None:
    time.sleep(_PAUSE if until is None else max(0.0, min(_PAUSE, until - time.monotonic())))


def byte_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines that end with a newline alone: texts in JSON may have other characters that end lines, as U+2028."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest
