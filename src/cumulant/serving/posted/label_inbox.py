"""Posted labels, stored in files until the project ingests them.

A body is `{"labels": [{"id": "...", "label": ...}, ...], "batch": "..."}`. What a label must hold is checked when it is
taken in, by the project; here it is made durable and nothing is dropped. Several workers and servers share the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cumulant.core.errors import CumulantError, EngineUnavailableError, OverloadedError, RequestError, UsageError
from cumulant.core.system.atomic_files import sync
from cumulant.serving.http.messages import Request, Response, json_response
from cumulant.serving.protocol.responses import LabelsResponse
from cumulant.serving.telemetry.metrics import Series, counter_series

#: a file takes whole blocks of a disk, however small it is
_BLOCK = 4096
#: seconds between two scans of the folder, and at least so many times as long as a scan takes
_SCAN, _SELDOM = 1.0, 20.0
#: seconds after which it may have been emptied
_RETRY = 30.0
_MOST = 100_000
_HINT = 'post {"labels": [{"id": REQUEST, "row": 0, "label": VALUE, "known_time": TIME}, ...]}'


class DiskQuota:
    """Tracks the size of the folder, in blocks: measured regularly, plus what this process writes in between.

    Writes of other processes count from the next measurement on, so they may exceed the quota until then; a file that
    is written during a measurement counts twice until the next. Files are never deleted.

    Args:
        most: bytes.
    """

    def __init__(self, folder: Path, most: int, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._most, self._steady = folder, most, steady
        self._lock = threading.Lock()
        #: in the folder as of the last scan and what was added here since, and what is being written
        self._used, self._coming = 0, 0
        self._next = -_SCAN

    def reserve(self, size: int) -> None:
        """Reserve space for a file of `size` bytes before it is written; `complete` must follow.

        Raises:
            UsageError: it does not fit into the empty folder.
            OverloadedError: too many bytes wait.
            OSError: the folder cannot be read.
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
        """Bytes in the folder at the last measurement, plus what was written here since.

        Raises:
            OSError: the folder cannot be read.
        """
        with self._lock:
            self._measure()
            return self._used

    def _measure(self) -> None:
        started = self._steady()
        if started < self._next:
            return
        try:
            with os.scandir(self._folder) as entries:
                whole = (entry for entry in entries if not entry.name.startswith("."))  # others are being written
                self._used = sum(_blocks(_size(entry)) for entry in whole)
        except FileNotFoundError:
            self._used = 0
        now = self._steady()
        self._next = now + max(_SCAN, _SELDOM * (now - started))


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:  # ingested in the meantime
        return 0


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
    """Stores posted labels in `folder`, one file per post, once by its batch or else its content.

    Args:
        most: bytes that may wait there; what was accepted stays, and what does not fit is refused.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._quota = folder, DiskQuota(folder, most)
        #: one at a time is decoded, which takes many times its bytes
        self._reading = threading.Lock()
        #: posts by what became of them
        self._counts = {"accepted": 0, "duplicate": 0, "refused": 0}

    async def post(self, request: Request) -> Response:
        """`POST /v1/labels`: answered once the labels are on the disk.

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
        with contextlib.suppress(OSError):
            series.append(Series("cumulant_labels_waiting_bytes", (), await asyncio.to_thread(self._quota.used)))
        return series

    def _keep(self, body: bytes) -> tuple[int, int]:
        """Counts of new and of duplicate labels."""
        with self._reading:
            posted = _read(body)
        name = hashlib.sha256(posted.batch.encode() if posted.batch else body).hexdigest()[:32]
        kind = "batch" if posted.batch else "post"
        try:
            added = self._write(f"{kind}-{name}.jsonl", _lines(posted))
        except OSError as error:
            raise EngineUnavailableError(
                f"the labels could not be stored: {error.strerror or error}", hint="post them again later"
            ) from error
        count = len(posted.labels)
        return (count, 0) if added else (0, count)

    def _write(self, name: str, content: bytes) -> bool:
        """Write a file durably; whether it is new. Raises UsageError, OverloadedError, OSError."""
        if (self._folder / name).exists():
            sync(self._folder)
            return False
        self._quota.reserve(len(content))
        added = False
        try:
            added = self._written(name, content)
        finally:
            self._quota.complete(len(content), written=added)
        return added

    def _written(self, name: str, content: bytes) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f".{secrets.token_hex(8)}"
        try:
            # Keys of predictions may be personal, and are hashed only at ingestion.
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(handle, "wb") as stream:  # noqa: PTH123 - no path
                stream.write(content)
                stream.flush()
                os.fsync(handle)
            added = _linked(draft, self._folder / name)
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
        sync(self._folder)
        return added


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


def _lines(posted: PostedLabels) -> bytes:
    """A line a label. A label posted without a time is known now, not when it is ingested."""
    now = datetime.now(UTC).isoformat()
    encode = msgspec.json.Encoder().encode
    return b"".join(encode({"known_time": now} | label) + b"\n" for label in posted.labels)


def _linked(draft: Path, path: Path) -> bool:
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    return True
