"""What a Feast repository becomes: sources, lookups with their features, and a line for each of its objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from cumulant.core.plan import DType

#: how a created timestamp is read: when a row became known, or only which of two rows of one key and time corrects
Created = Literal["known", "corrections"]
Outcome = Literal["mapped", "partly", "not mapped"]
#: the source of the rows that features are looked up for
ROWS = "rows"
#: Feast's types with plain values
TYPES: Mapping[str, DType] = {
    "Int32": "int",
    "Int64": "int",
    "Float32": "float",
    "Float64": "float",
    "String": "str",
    "Bool": "bool",
    "UnixTimestamp": "time",
    "Json": "str",  # which it also infers for texts of files that pandas has not written
    "Uuid": "str",
    "TimeUuid": "str",
}


class FeastOptions(msgspec.Struct, frozen=True):
    """What the caller decides of an import.

    `service`: the only feature service that is imported, empty for every view. `paths`: files of Feast sources by name,
    in place of what the repository says.
    """

    service: str = ""
    created: Created = "known"
    paths: Mapping[str, str] = {}


class ImportedSource(msgspec.Struct, frozen=True):
    """A source of the project file. `known`: the columns that become known at `created`, where it is not empty.

    `nested`: whether columns hold lists or structs, which have to be left out. `required`: columns without which rows
    are left out, as they are for lookups by others.
    """

    name: str
    path: str
    key: tuple[str, ...]
    event_time: str
    created: str = ""
    known: tuple[str, ...] = ()
    types: dict[str, DType] = {}
    nested: bool = False
    required: tuple[str, ...] = ()


class ImportedFeature(msgspec.Struct, frozen=True):
    """A feature: its name, and the column of the looked-up row."""

    name: str
    column: str
    description: str = ""
    tags: tuple[str, ...] = ()


class ImportedView(msgspec.Struct, frozen=True):
    """A lookup with its features. `by_event_time`: values become known in another order than that of event times."""

    name: str
    variable: str
    source: str
    by: tuple[str, ...]
    features: tuple[ImportedFeature, ...]
    within_seconds: float = 0.0
    by_event_time: bool = False
    owner: str = ""
    description: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether its features are the columns that are looked up, as they are."""
        first = self.features[0]
        return all(
            feature.name == feature.column and feature.tags == first.tags and not feature.description
            for feature in self.features
        )


class ImportedObject(msgspec.Struct, frozen=True):
    """One definition of Feast: what it became, or why not and what to do."""

    kind: str
    name: str
    outcome: Outcome
    text: str
    next: str = ""


class ImportedRepository(msgspec.Struct, frozen=True):
    """The project that a repository becomes. `differences`: where values differ from Feast's, one sentence each."""

    project: str
    sources: tuple[ImportedSource, ...]
    views: tuple[ImportedView, ...]
    objects: tuple[ImportedObject, ...]
    differences: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns by which rows are looked up."""
        return tuple(dict.fromkeys(key for view in self.views for key in view.by))
