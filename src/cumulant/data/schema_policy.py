"""What the project file says of columns that differ from those of the last accepted snapshot."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

ChangePolicy = Literal["accept", "refuse"]


class SchemaPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to do when the columns differ from the last accepted snapshot."""

    added: Annotated[ChangePolicy, Meta(description="A new column.")] = "accept"
    widened: Annotated[ChangePolicy, Meta(description="A type that holds every old value, such as int to float.")] = (
        "accept"
    )
    removed: Annotated[ChangePolicy, Meta(description="A used column is gone.")] = "refuse"
    narrowed: Annotated[ChangePolicy, Meta(description="A type that does not hold every old value.")] = "refuse"
    renamed: Annotated[ChangePolicy, Meta(description="A used column is gone and a like one is new.")] = "refuse"
