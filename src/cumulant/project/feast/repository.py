"""The definitions of a Feast repository, as `describe.py` writes them."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from cumulant.core.errors import DataError

#: a thousand years, and so no limit: a lookup that goes back longer may end before the first year of dates
LONGEST_SECONDS = timedelta(days=365_000).total_seconds()


class FeastEntity(msgspec.Struct, frozen=True):
    """What features are of; `join_key` is the column that names it."""

    name: str
    join_key: str
    value_type: str = "UNKNOWN"


class FeastSource(msgspec.Struct, frozen=True):
    """Where rows are. Texts that are not set are empty. `field_mapping`: columns of the data to names in Feast."""

    name: str
    kind: str
    timestamp_field: str = ""
    created_timestamp_column: str = ""
    field_mapping: dict[str, str] = {}
    batch_source: str = ""
    table: str = ""
    topic: str = ""
    path: str = ""
    format: str = ""

    def column(self, name: str) -> str:
        """The column of the data that has a name in Feast."""
        return next((column for column, renamed in self.field_mapping.items() if renamed == name), name)


class FeastField(msgspec.Struct, frozen=True):
    name: str
    type: str
    description: str = ""
    tags: dict[str, str] = {}


class FeastAggregation(msgspec.Struct, frozen=True):
    column: str
    function: str
    window_seconds: float = 0.0


class FeastView(msgspec.Struct, frozen=True):
    """A group of features of the same entities; `ttl_seconds` 0 is no limit. `problem`: why its schema is unknown."""

    name: str
    kind: str
    join_keys: tuple[str, ...] = ()
    ttl_seconds: float = 0.0
    source: str = ""
    stream_source: str = ""
    features: tuple[FeastField, ...] = ()
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = {}
    aggregations: tuple[FeastAggregation, ...] = ()
    transformed: bool = False
    source_views: tuple[str, ...] = ()
    problem: str = ""

    @property
    def within_seconds(self) -> float:
        """The limit of the age of rows, 0 for none; so long a ttl as timedelta.max is none."""
        return self.ttl_seconds if self.ttl_seconds < LONGEST_SECONDS else 0.0


class FeastOnDemandView(msgspec.Struct, frozen=True):
    """Features that Python computes at each request, of features of views and of fields of the request."""

    name: str
    features: tuple[FeastField, ...] = ()
    views: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()


class FeastProjection(msgspec.Struct, frozen=True):
    """Features of a view in a service; without names, all of them."""

    view: str
    features: tuple[str, ...] = ()
    join_key_map: dict[str, str] = {}

    @property
    def keys_text(self) -> str:
        """The join keys that it renames, with their names in the rows to look up."""
        return ", ".join(f"{key} as {name}" for key, name in self.join_key_map.items())

    @property
    def label(self) -> str:
        """The view, told apart from other lookups in it."""
        return f"{self.view} ({self.keys_text})" if self.join_key_map else self.view


class FeastService(msgspec.Struct, frozen=True):
    name: str
    projections: tuple[FeastProjection, ...] = ()

    def by_view(self) -> dict[str, list[FeastProjection]]:
        """What it takes of each view, by ways to look it up; the one without renamed join keys is the first."""
        united: dict[tuple[str, tuple[tuple[str, str], ...]], FeastProjection] = {}
        for part in self.projections:
            way = (part.view, tuple(sorted(part.join_key_map.items())))
            earlier = united.get(way, part)
            every = not earlier.features or not part.features
            features = () if every else tuple(dict.fromkeys((*earlier.features, *part.features)))
            united[way] = msgspec.structs.replace(part, features=features)
        views: dict[str, list[FeastProjection]] = {}
        for part in sorted(united.values(), key=lambda part: bool(part.join_key_map)):
            views.setdefault(part.view, []).append(part)
        return views


class FeastOther(msgspec.Struct, frozen=True):
    """An object of a kind that has no counterpart, such as a permission."""

    kind: str
    name: str = ""


class FeastRepository(msgspec.Struct, frozen=True):
    """All definitions of a repository; `feast` is the version of Feast that read them."""

    feast: str
    project: str = ""
    entities: tuple[FeastEntity, ...] = ()
    sources: tuple[FeastSource, ...] = ()
    views: tuple[FeastView, ...] = ()
    on_demand: tuple[FeastOnDemandView, ...] = ()
    services: tuple[FeastService, ...] = ()
    others: tuple[FeastOther, ...] = ()


def parse_repository(content: bytes) -> FeastRepository:
    """Raises DataError where the content is not what `describe.py` writes."""
    try:
        return msgspec.json.decode(content, type=FeastRepository)
    except msgspec.DecodeError as error:
        raise DataError(
            f"the definitions of the repository cannot be read: {error}",
            hint="this version of Feast may be newer than what is supported; try an earlier one with --python",
        ) from error
