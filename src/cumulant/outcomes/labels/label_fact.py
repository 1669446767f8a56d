"""One row of labels, for readers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

State = Literal["usable", "unmatched", "waiting", "refused", "contradicted"]


class LabelFact(msgspec.Struct, frozen=True, kw_only=True):
    """One row of labels. Of a prediction named by its key, `key` holds personal values as keyed hashes."""

    state: State
    id: str | None
    row: int | None
    key: Any
    event_time: datetime | None
    model: str
    label: Any
    known_time: datetime
    weight: float
    problem: str
    source: str
    line: int
    received: datetime
