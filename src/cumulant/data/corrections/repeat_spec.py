"""What a source declares of rows with a key that an accepted row has: corrections, repetitions, deletions."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

OnRepeat = Annotated[
    Literal["quarantine", "first", "latest"],
    Meta(
        description="How a row is handled whose key an accepted row has. `quarantine`: it is refused and counts "
        "towards the limit. `first`: it is refused and does not count. `latest`: it is a correction, in force from "
        "the moment at which it became known: the latest time of the columns that `known_time` names, else the run "
        "that read it first. Until then the earlier row is."
    ),
]
SequenceBy = Annotated[
    str | None,
    Meta(
        description="With `on_repeat: latest`: the column that orders the rows of a key that have one known time, "
        "such as a version or the position in a log; the greatest value is the latest row. It holds whole numbers, "
        "times, dates or text, and its `type` is declared under `rules`. Rows without a known time, and all rows "
        "without this column, are in the order of their arrival."
    ),
]


class DeletedRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rows that delete the row of their key."""

    column: Annotated[str, Meta(description="The column that marks a deletion, such as `op`.")]
    values: Annotated[
        list[bool | int | float | str],
        Meta(description="Its values that mean a deletion, such as `[D]`.", min_length=1),
    ]
