"""Sending of a period's requests and labels at their moments, at a multiple of real time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import numpy as np

from cumulant.core.traffic import ARM_HEADER, CALLER_HEADER, CHAMPION, FORCE_HEADER, REQUEST_HEADER
from cumulant.flows.replay.caller import ReplayClient, ReplayResponse
from cumulant.flows.replay.replay_progress import ReplayState
from cumulant.flows.replay.replay_rows import KnownLabel, Period, ReplayCall, to_plain

#: seconds between two posts of labels, and two notes of how far it has come
_POST, _NOTE = 0.5, 1.0
_MOST_LABELS = 5000
#: bytes that are shown of an answer that refuses
_ANSWER_BYTES = 300
_SECOND = 1_000_000
_JSON = {"content-type": "application/json"}


class Sent(NamedTuple):
    """One finished request. `arm`: that the gateway assigned; `request`: its id in the prediction log."""

    call: ReplayCall
    request: str
    arm: str
    answer: ReplayResponse


class ReplayCounts:
    """Counts of answers. Failures are counted by whose they are: an arm's, the gateway's, the caller's."""

    def __init__(self) -> None:
        self.requests = self.labels = 0
        self.failures: dict[str, int] = {}
        #: what the last failed request was answered; empty where none failed
        self.last_failure = ""
        self.arms: dict[str, int] = {}
        self._took: list[float] = []

    def add(self, sent: Sent) -> None:
        self.requests += 1
        self._took.append(sent.answer.seconds)
        whose = failed_party(sent)
        if whose:
            self.failures[whose] = self.failures.get(whose, 0) + 1
            self.last_failure = _answer_text(sent.answer)
        elif sent.arm:
            self.arms[sent.arm] = self.arms.get(sent.arm, 0) + 1

    def milliseconds(self, quantile: float) -> float | None:
        """That quantile of all requests' times; None before the first."""
        return round(float(np.quantile(self._took, quantile)) * 1000, 3) if self._took else None


def failed_party(sent: Sent) -> str:
    """Whose failure it was; empty where it was none. An answer without an arm is the gateway's own."""
    status = sent.answer.status
    if status == 0 or status >= 500 or status == 429:
        return sent.arm or "gateway"
    return "caller" if status >= 400 else ""


def _answer_text(answer: ReplayResponse) -> str:
    """The status of an answer, and what it says: its error and hint, else the beginning of its text."""
    text = answer.body[:_ANSWER_BYTES].decode(errors="replace")
    with suppress(msgspec.DecodeError):
        document = msgspec.json.decode(answer.body, type=dict[str, Any])
        parts = [str(document[name]) for name in ("error", "detail", "hint") if document.get(name)]
        text = "; ".join(parts)[:_ANSWER_BYTES] or text
    return f"{answer.status or 'no answer'}: {text}"


class Sender:
    """Sends a period until `ended()`, and then waits for running requests.

    Args:
        concurrency: requests at once; where servers are slower than the pace, the replayed clock waits.
        seen: called with every request as it ends.
        note: called about once a second, and at the end, with the progress.
        moving: called with the replayed moment, microseconds since 1970 UTC.
    """

    def __init__(
        self,
        period: Period,
        reached: ReplayState,
        *,
        url: str,
        speed: float,
        concurrency: int,
        timeout: float,
        ended: Callable[[], bool],
        seen: Callable[[Sent], None],
        note: Callable[[ReplayState], None],
        moving: Callable[[int], None],
    ) -> None:
        self._period, self._reached, self._speed = period, reached, speed
        self._ended, self._seen, self._note, self._moving = ended, seen, note, moving
        self._caller = ReplayClient(url, timeout=timeout)
        self._path = f"/v1/models/{period.model}/predict"
        self._room = asyncio.Semaphore(concurrency)
        self._under_way: set[int] = set()
        #: rows before this one were sent
        self._next_row = reached.sent
        self._labels: Iterator[KnownLabel] = period.labels_from(reached.labels_sent)
        self._next: KnownLabel | None = next(self._labels, None)
        self._posted = self._noted = time.monotonic()
        self.counts = ReplayCounts()
        #: why the last labels were not taken; empty where they were
        self.label_trouble = ""

    async def run(self, until: int) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                now = await self._requests(group, until)
            await self._tell(now, last=True)
        finally:
            self._keep()
            self._caller.close()
            await asyncio.sleep(0)  # the closed connections take notice

    async def _requests(self, group: asyncio.TaskGroup, until: int) -> int:
        """The replayed moment up to which labels are due."""
        calls = self._period.calls(self._reached.sent)
        now, lag, begun = 0, 0.0, time.monotonic()
        origin: int | None = None
        for call in calls:
            origin = call.at if origin is None else origin
            if self._ended():
                return now
            due = begun + (call.at - origin) / _SECOND / self._speed + lag
            await self._wait(due, origin, begun + lag)
            await self._room.acquire()
            lag = max(lag, time.monotonic() - (due - lag))
            now, self._next_row = call.at, call.number + 1
            self._under_way.add(call.number)
            group.create_task(self._one(call))
            await self._beside(now)
            if self._ended():
                return now
        return until

    async def _wait(self, due: float, origin: int, begun: float) -> None:
        """Until a request is due; labels go on meanwhile."""
        while (remaining := due - time.monotonic()) > 0 and not self._ended():
            await asyncio.sleep(min(remaining, _POST))
            if remaining > _POST:
                await self._beside(origin + int((time.monotonic() - begun) * self._speed * _SECOND))

    async def _one(self, call: ReplayCall) -> None:
        request = f"{self._reached.id}-{call.number}"
        try:
            answer = await self._caller.ask("POST", self._path, call.body, {**_JSON, CALLER_HEADER: request})
        finally:
            self._room.release()
        self._under_way.discard(call.number)
        # A server without a gateway takes the caller's id and sends none of its own.
        request = answer.headers.get(REQUEST_HEADER) or request
        sent = Sent(call, request, answer.headers.get(ARM_HEADER, ""), answer)
        if not failed_party(sent) and call.number in self._period.labelled:
            self._reached.ids[call.number] = request
        self._reached.sent = max(self._reached.sent, call.number + 1)
        self.counts.add(sent)
        self._seen(sent)

    async def _beside(self, now: int) -> None:
        moment = time.monotonic()
        if moment - self._posted >= _POST:
            await self._tell(now)
        if moment - self._noted >= _NOTE:
            self._keep()
            self._moving(now)

    def _keep(self) -> None:
        """Requests under way count as not sent: a resumed replay sends them again."""
        self._noted = time.monotonic()
        reached = self._reached
        self._note(msgspec.structs.replace(reached, sent=min([reached.sent, *self._under_way])))

    # --- labels

    async def _tell(self, now: int, *, last: bool = False) -> None:
        """Post what has become known by the replayed moment `now`, of rows that were answered."""
        self._posted = time.monotonic()
        while True:
            begun = self._reached.labels_sent
            due = self._due(now)
            if not due:
                return
            labels = [self._label(label) for label in due if label.number in self._reached.ids]
            if labels and not await self._post(labels, begun):
                # Told again the next time; a batch that came through after all is taken once.
                self._reached.labels_sent, self._labels = begun, self._period.labels_from(begun)
                self._next = next(self._labels, None)
                return
            self.counts.labels += len(labels)
            for label in due:
                self._reached.ids.pop(label.number, None)
            if len(due) < _MOST_LABELS and not last:
                return

    def _due(self, now: int) -> list[KnownLabel]:
        """Labels that are known by `now`, up to the first whose row is not answered yet: its id is unknown."""
        labels: list[KnownLabel] = []
        while self._next is not None and self._next.at <= now and len(labels) < _MOST_LABELS:
            if self._next.number >= self._next_row or self._next.number in self._under_way:
                break
            labels.append(self._next)
            self._next = next(self._labels, None)
        self._reached.labels_sent += len(labels)
        return labels

    def _label(self, label: KnownLabel) -> dict[str, Any]:
        known = {"id": self._reached.ids[label.number], "known_time": label.at / _SECOND}
        return {**known, **to_plain(label.values)}

    async def _post(self, labels: list[dict[str, Any]], begun: int) -> bool:
        body = msgspec.json.encode({"labels": labels, "batch": f"{self._reached.id}-{begun}"})
        # Forced, so that the gateway counts it for no arm.
        answer = await self._caller.ask("POST", "/v1/labels", body, {**_JSON, FORCE_HEADER: CHAMPION})
        self.label_trouble = "" if answer.status == 200 else _answer_text(answer)
        return not self.label_trouble
