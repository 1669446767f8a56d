"""Posted labels, stored in a log until the project ingests them.

A body is `{"labels": [{"id": "...", "label": ...}, ...], "batch": "..."}`. What a label must hold is checked when it is
taken in, by the project; here it is made durable and nothing is dropped. A post is confirmed when it is in the log,
which may be in an object store: the loss of this machine loses none. Several workers and servers share the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from cumulant.core.errors import (
    CumulantError,
    EngineUnavailableError,
    OverloadedError,
    RequestError,
    StorageError,
    UsageError,
)
from cumulant.core.plan import Field
from cumulant.core.prometheus import Series
from cumulant.ports.log import UNDATED, Log, PartInfo
from cumulant.serving.http.messages import Request, Response, json_response
from cumulant.serving.posted.label_masking import mask_label
from cumulant.serving.protocol.responses import LabelsResponse
from cumulant.serving.telemetry.metrics import counter_series

#: a file takes whole blocks of a disk, however small it is
_BLOCK = 4096
#: seconds between two scans of the folder, and at least so many times as long as a scan takes
_SCAN, _SELDOM = 1.0, 20.0
#: seconds after which it may have been emptied
_RETRY = 30.0
_MOST = 100_000
_HINT = 'post {"labels": [{"id": REQUEST, "row": 0, "label": VALUE, "known_time": TIME}, ...]}'


class InboxQuota:
    """Tracks the size of an inbox, in blocks: measured regularly, plus what this process writes in between.

    Writes of other processes count from the next measurement on, so they may exceed the quota until then; a post that
    is written during a measurement counts twice until the next. Posts are never deleted.

    Args:
        most: bytes.
    """

    def __init__(self, inbox: Log, most: int, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._inbox, self._most, self._steady = inbox, most, steady
        self._lock = threading.Lock()
        #: in the inbox as of the last measurement and what was added here since, and what is being written
        self._used, self._coming = 0, 0
        self._next = -_SCAN

    def reserve(self, size: int) -> None:
        """Reserve space for a file of `size` bytes before it is written; `complete` must follow.

        Raises:
            UsageError: it does not fit into the empty inbox.
            OverloadedError: too many bytes wait.
            CumulantError: the inbox cannot be read.
        """
        whole = _blocks(size)
        if whole > self._most:
            raise UsageError(
                f"they take {whole:,} bytes, and all posted labels together may take {self._most:,}",
                hint="post them in parts, or ingest a file",
            )
        with self._lock:
            self._measure()
            if self._used + self._coming + whole > self._most:
                raise OverloadedError(
                    f"posted labels wait for ingestion, and no more than {self._most:,} bytes of them may wait",
                    hint="nothing of this post was stored: post it again after `cumulant labels ingest`",
                    retry_after=_RETRY,
                )
            self._coming += whole

    def complete(self, size: int, *, written: bool) -> None:
        """Complete a reservation; unless the file was written, its space is released."""
        with self._lock:
            self._coming -= _blocks(size)
            self._used += _blocks(size) if written else 0

    def used(self) -> int:
        """Bytes in the inbox at the last measurement, plus what was written here since.

        Raises:
            CumulantError: the inbox cannot be read.
        """
        with self._lock:
            self._measure()
            return self._used

    def _measure(self) -> None:
        started = self._steady()
        if started < self._next:
            return
        self._used = sum(_blocks(part.bytes) for part in self._inbox.parts(UNDATED))
        now = self._steady()
        self._next = now + max(_SCAN, _SELDOM * (now - started))


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


class PostedLabels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request that posts labels; of two with the same `batch` the first one counts."""

    labels: list[dict[str, object]]
    batch: str = ""


class _RawLabels(msgspec.Struct, frozen=True):
    """Undecoded labels, to count them before they are decoded."""

    labels: list[msgspec.Raw] = []


# Made here: threads that make a decoder of one type at once crash msgspec 0.22.
_decode_raw = msgspec.json.Decoder(_RawLabels).decode
_decode_labels = msgspec.json.Decoder(PostedLabels).decode


class LabelInbox:
    """Stores posted labels in a log, one part per post, once by its batch or else its content.

    Args:
        most: bytes that may wait there; what was accepted stays, and what does not fit is refused.
        personal: fields of the served models whose values are stored as keyed hashes under `salt`.
    """

    def __init__(
        self, inbox: Log, most: int, *, personal: Callable[[], Mapping[str, Field]] = dict, salt: bytes = b""
    ) -> None:
        self._inbox, self._quota = inbox, InboxQuota(inbox, most)
        self._personal, self._salt = personal, salt
        #: one at a time is decoded, which takes many times its bytes
        self._reading = threading.Lock()
        #: posts by what became of them
        self._counts = {"accepted": 0, "duplicate": 0, "refused": 0}

    async def post(self, request: Request) -> Response:
        """`POST /v1/labels`: answered once the labels are in the log.

        Raises:
            RequestError: the body is no such object.
            UsageError: it is larger than all that may wait.
            OverloadedError: as much waits as may; none of them was stored.
            EngineUnavailableError: they could not be stored; none of them was.
        """
        try:
            accepted, duplicates = await asyncio.to_thread(self._keep, request.body)
        except CumulantError:
            self._counts["refused"] += 1
            raise
        self._counts["accepted" if accepted else "duplicate"] += 1
        return json_response(LabelsResponse(accepted, duplicates))

    async def series(self) -> list[Series]:
        """Metric series of posts by result, and of waiting bytes, which are measured on a thread."""
        series = counter_series("cumulant_label_posts_total", (), self._counts)
        with contextlib.suppress(CumulantError):
            series.append(Series("cumulant_labels_waiting_bytes", (), await asyncio.to_thread(self._quota.used)))
        return series

    def _keep(self, body: bytes) -> tuple[int, int]:
        """Counts of new and of duplicate labels."""
        with self._reading:
            posted = _read(body)
        name = _name_of(posted.batch.encode() if posted.batch else body, self._salt)
        kind = "batch" if posted.batch else "post"
        try:
            added = self._write(PartInfo(UNDATED, f"{kind}-{name}", 1, 1, "jsonl"), self._lines(posted))
        except (StorageError, EngineUnavailableError) as error:
            raise EngineUnavailableError(
                f"the labels could not be stored: {error.message}", hint="post them again later"
            ) from error
        count = len(posted.labels)
        return (count, 0) if added else (0, count)

    def _write(self, part: PartInfo, content: bytes) -> bool:
        """Append a post durably; whether it is new. Raises UsageError, OverloadedError, as `Log`."""
        if self._is_there(part):
            self._append(part, content)  # confirmed when it is durable, whoever wrote it
            return False
        self._quota.reserve(len(content))
        added = False
        try:
            self._append(part, content)
            added = True
        finally:
            self._quota.complete(len(content), written=added)
        return added

    def _is_there(self, part: PartInfo) -> bool:
        with contextlib.suppress(FileNotFoundError), self._inbox.open(part):
            return True
        return False

    def _append(self, part: PartInfo, content: bytes) -> None:
        with self._inbox.append(part) as stream:
            stream.write(content)

    def _lines(self, posted: PostedLabels) -> bytes:
        """A line a label. A label posted without a time is known now, not when it is ingested."""
        now, fields = datetime.now(UTC).isoformat(), self._personal()
        encode = msgspec.json.Encoder().encode
        labels = (mask_label(label, fields, self._salt) if fields else label for label in posted.labels)
        return b"".join(encode({"known_time": now} | label) + b"\n" for label in labels)


def _read(body: bytes) -> PostedLabels:
    try:
        if len(_decode_raw(body).labels) > _MOST:
            raise RequestError(f"more than {_MOST:,} labels at once", hint="post them in parts, or ingest a file")
        posted = _decode_labels(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body cannot be read ({error})", hint=_HINT) from None
    if not posted.labels:
        raise RequestError("there are no labels in it", hint=_HINT)
    return posted


def _name_of(content: bytes, salt: bytes) -> str:
    """128 bits of a hash; under the salt, so that a guess of what was posted cannot be tested without it."""
    hashed = hmac.digest(salt, content, "sha256") if salt else hashlib.sha256(content).digest()
    return hashed.hex()[:32]
