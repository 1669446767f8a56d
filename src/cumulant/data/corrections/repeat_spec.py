"""What a source declares of rows with a key that an accepted row has: corrections, repetitions, deletions."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

OnRepeat = Literal["quarantine", "first", "latest"]


class DeletedRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rows that delete the row of their key."""

    column: Annotated[str, Meta(description="The column that marks a deletion, such as `op`.")]
    values: Annotated[
        list[bool | int | float | str],
        Meta(description="Its values that mean a deletion, such as `[D]`.", min_length=1),
    ]
