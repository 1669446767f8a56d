"""Entries that workers send to the log process, and the frames of the protocol between them."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct as Layout
from typing import Annotated

import msgspec

from cumulant.core.plan import Field

#: name, datatype of the Open Inference Protocol, shape, and the values: row-major, little-endian; BYTES as in its
#: binary form, each element behind its length in four bytes
Tensor = tuple[str, str, list[int], bytes]
#: of `struct`, by datatype
STRUCT_CODES: Mapping[str, str] = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Moment = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
#: until the year 9999
AnswerTime = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999_999)]


class LogEntry(msgspec.Struct, array_like=True, gc=False):
    """One answered request. Times are microseconds since 1970 UTC, ages seconds; lists have one element a row.

    The request is either `rows` (a JSON list of raw row objects) or `tensors`; the answer either `answers` (a JSON
    list of objects) or `outputs`. The client gives `sequence`.
    """

    id: str
    time_us: AnswerTime
    latency_us: Count
    model: str
    version: str
    sequence: Count = 0
    arm: str = ""
    served_arm: str = ""
    shadow: bool = False
    fallback: str = ""
    tenant: str = ""
    fingerprint: str = ""
    event_times: list[Moment | None] | None = None
    ages: list[float | None] | None = None
    rows: bytes = b""
    tensors: list[Tensor] = []
    #: names of the columns where the request is one tensor [n, k]
    columns: list[str] = []
    answers: bytes = b""
    outputs: list[Tensor] = []
    #: the caller's own name of the request, where `id` is ours
    caller_id: str = ""
    #: the rules that each row breaks, as `amt:min`
    invalid: list[str] = []
    #: who sent the request
    principal: str = ""
    #: the stored features of each row as JSON objects, of a sample of the requests
    features: list[str] = []
    #: the features of each row that may lack events, as `sum_7d,mean_7d`; empty where no row has any
    incomplete: list[str] = []


class PatternEntry(msgspec.Struct, array_like=True, gc=False):
    """Answered request by a pattern: a registered entry of one tensor and one output.

    These fields and the first size of its tensors are its own; all others are those of the pattern.
    """

    pattern: int
    id: str
    time_us: AnswerTime
    latency_us: Count
    #: the values of the tensor, and of the output
    request: bytes
    outputs: bytes
    sequence: Count = 0
    caller_id: str = ""


class Hello(msgspec.Struct, array_like=True):
    """First frame of a connection: the worker, and the personal fields of models.

    A file descriptor is passed with it, where the system can pass one: its first eight bytes are the newest sequence
    number that the worker gave, so that a killed worker's last entries are known to be missing.
    """

    worker: str
    started_us: AnswerTime
    region: str
    personal: dict[str, list[Field]]
    #: those sent so far
    patterns: list[LogEntry] = []
    #: entries are confirmed once they are on the disk; until then the worker may send them again
    durable: bool = False


class RefusedEntries(msgspec.Struct, array_like=True):
    """Refused entries, which are not logged: the numbers `first` to `last`, and the reason."""

    first: int
    last: int
    why: str


#: kinds of a frame
HELLO, ENTRY, DESCRIBE, GOODBYE, PATTERN, LIKE = 1, 2, 3, 4, 5, 6
#: frames of the log process: all numbers so far without those refused are durable (a `COUNTER`); `RefusedEntries`
COMMITTED, REFUSED = 7, 8
#: the most patterns of a worker
PATTERNS = 1024
#: the length of what follows (kind and payload), and the kind
HEAD = Layout(">IB")
#: of the counter behind the file descriptor
COUNTER = Layout("<Q")
#: of a frame, in bytes: longer ones are garbage
MAX_FRAME = 64 * 1024 * 1024


def make_frame(kind: int, payload: bytes) -> bytes:
    """One frame."""
    return HEAD.pack(len(payload) + 1, kind) + payload
