"""The stored form of online state: for each entity of a group, its events in the order in which they became known.

A table holds one blob an entity and, under `STATE_KEY`, what the whole table was made from. Windows are evaluated on
these events at the request's own moment, so that serving agrees with training to the microsecond.

A table that events are posted to is updated: `TableState.sequence` counts its changes, and each blob ends with the
number of the change that wrote it, so that readers see cheaply what they need not read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from cumulant.core.plan import DType

FORMAT = STATE_FORMAT = 2
STATE_KEY = b"\x00state"
#: the identity of a row without a key: no request is ever taken for it
NO_IDENTITY = -(2**63)


class Slot(msgspec.Struct, frozen=True, array_like=True):
    """One value of each event: float64 or int64 bytes, or texts. `valid` has a byte an event; None where all are."""

    data: bytes = b""
    texts: list[str | None] | None = None
    valid: bytes | None = None


class Events(msgspec.Struct, frozen=True, array_like=True):
    """Events sorted by (time of entry, position in the source). Times are microseconds as int64 bytes.

    `identities` holds a number for the key of each row, where the source has a key; `positions` the rows' places in
    the source, where the order of events known at one moment matters. `version` is the number of the change that wrote
    the blob, in 8 bytes, and stays last.

    Moments before `since` cannot be answered: events that they would see are dropped, or rows were corrected or deleted
    then. Events that only moments before `kept` see are dropped. `since_us` is both where they are one moment, else
    the two. Blobs of earlier versions of Cumulant name `since` alone, whatever it comes from.
    """

    times: bytes
    slots: list[Slot]
    identities: bytes | None = None
    positions: bytes | None = None
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
    the row in force of each key, so that posted rows correct it.
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


encode = msgspec.msgpack.Encoder().encode
decode_events = msgspec.msgpack.Decoder(Events).decode
decode_state = msgspec.msgpack.Decoder(TableState).decode


def key_form(values: Sequence[Any]) -> Sequence[Any]:
    """Values as keys have them: of the two zeros of floats, which are equal, the positive one."""
    if 0.0 not in values:
        return values
    return [0.0 if isinstance(value, float) and not value else value for value in values]


def entity_key(group: int, values: Sequence[bool | int | float | str]) -> bytes:
    """The key of one entity of a group; values in their inside form."""
    return encode([group, *(key_form(values) if 0.0 in values else values)])


def row_identity(values: Sequence[bool | int | float | str | None]) -> int:
    """A 64-bit number for the key of a row: a single whole number is itself, anything else a hash."""
    if None in values or not values:
        return NO_IDENTITY
    if len(values) == 1 and isinstance(values[0], int):
        return int(values[0])
    return int.from_bytes(
        hashlib.blake2b(encode(list(key_form(values))), digest_size=8).digest(), "little", signed=True
    )


def typecode(dtype: DType) -> str | None:
    """How values are packed: `d` float64, `q` int64 (also bools, times, dates); None for texts."""
    if dtype in {"str", "bytes"}:
        return None
    return "d" if dtype == "float" else "q"
