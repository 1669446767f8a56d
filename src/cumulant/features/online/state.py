"""The stored form of online state: for each entity of a group, its events in the order in which they became known.

A table holds a blob an entity (several where it has many events: `tiles`) and, under `STATE_KEY`, what the whole table
was made from. Windows are evaluated on these events at the request's own moment, so that serving agrees with training
to the microsecond.

Servers keep hundreds of thousands of entities: with `gc=False` and tuples the garbage collector does not track them.
Each collection took a server that keeps 100,000 of them .3 s.

A table that events are posted to is updated: `TableState.sequence` counts its changes, and each blob ends with the
number of the change that wrote it, so that readers see cheaply what they need not read again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cumulant.core.plan import DType
from cumulant.features.offline.row_identity import key_form

FORMAT = STATE_FORMAT = 4
STATE_KEY = b"\x00state"


class CacheBusyError(Exception):
    """Another thread reads entities of the table now."""


class Slot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One value of each event: float64 or int64 bytes, or texts. `valid` has a byte an event; None where all are."""

    data: bytes = b""
    texts: list[str | None] | None = None
    valid: bytes | None = None


class Events(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Events sorted by (time of entry, event time, identity). Times are microseconds as int64 bytes.

    `identities` holds a number for the key of each row, where the source has a key; `event_times` the times of the
    events where they decide the order of those that enter at one moment (`MeasureGroup.orders_by_event_time`).
    `version` is the number of the change that wrote the blob, in 8 bytes, and stays last.

    Moments before `since` cannot be answered: events that they would see are dropped, or rows were corrected or deleted
    then. Events that only moments before `kept` see are dropped. `since_us` is both where they are one moment, else
    the two. Blobs of earlier versions of Cumulant name `since` alone, whatever it comes from.
    """

    times: bytes
    slots: tuple[Slot, ...]
    identities: bytes | None = None
    event_times: bytes | None = None
    since_us: int | tuple[int, int | None] | None = None
    version: bytes = bytes(8)

    @property
    def since(self) -> int | None:
        return self.since_us[0] if isinstance(self.since_us, tuple) else self.since_us

    @property
    def kept(self) -> int | None:
        return self.since_us[1] if isinstance(self.since_us, tuple) else self.since_us


class TableState(msgspec.Struct, frozen=True):
    """Origin and progress of a table. It answers for prediction moments from `since_us` on (None: any).

    `sequence` counts the changes since. The rows posted to each source lie in a log of `scope`; `marks` has, by
    source, up to which entry of it (not included) the table holds them. Of the sources in `versions` the table holds
    the row in force of each key, so that posted rows correct it. `seed` is a secret number: where tiles begin follows
    from it. `applied` has, by source of a stream, the last batch of those whose rows are all in the table; `contents`
    the digest of its content, where it was put in after the filling. `newest`: by source, the latest event time of its
    rows, in microseconds; rows dated after the clock of the writer, and those of requests, do not count. Tables of
    earlier versions of Cumulant learn it with the next row.
    """

    format: int
    fingerprint: str
    generation: str
    as_of_us: int | None
    since_us: int | None
    rows: int
    entities: int
    sequence: int = 0
    scope: str = ""
    marks: dict[str, int] = {}
    versions: tuple[str, ...] = ()
    seed: int = 0
    applied: dict[str, int] = {}
    newest: dict[str, int] = {}
    contents: dict[str, str] = {}


encode = msgspec.msgpack.Encoder().encode
decode_events = msgspec.msgpack.Decoder(Events).decode
decode_state = msgspec.msgpack.Decoder(TableState).decode


def entity_key(group: int, values: Sequence[bool | int | float | str]) -> bytes:
    """The key of one entity of a group; values in their inside form."""
    return encode([group, *(key_form(values) if 0.0 in values else values)])


def typecode(dtype: DType) -> str | None:
    """How values are packed: `d` float64, `q` int64 (also bools, times, dates); None for texts."""
    if dtype in {"str", "bytes"}:
        return None
    return "d" if dtype == "float" else "q"
