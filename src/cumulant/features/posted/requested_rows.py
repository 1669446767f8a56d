"""Which rows of a source some requests may see, so that no other rows of its log are held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from cumulant.core.plan import FeaturePlan
from cumulant.features.offline.frames import scan_fields
from cumulant.features.offline.groups import groups_of
from cumulant.features.online.logged_rows import field_frame
from cumulant.features.posted.posted_events import Inside, key_values

_Entity = tuple[tuple[str, ...], tuple[object, ...]]


class RequestedRows:
    """Rows of the entities of requests: each version of a row of which one is known to be of these entities."""

    def __init__(self, plan: FeaturePlan, name: str, requests: Iterable[Inside]) -> None:
        self._source = source = plan.sources[name]
        self.by = sorted({group.by for group in groups_of(plan) if group.source == name})
        self.entities = {entity for request in requests for entity in self.entities_of(request)}
        fields = {field.name: field for field in source.fields}
        self._read = [
            field for field in source.fields if field.name in {*source.key, *(of for by in self.by for of in by)}
        ]
        self._entities = [
            field_frame(
                [fields[of] for of in by], [dict(zip(by, own, strict=True)) for to, own in self.entities if to == by]
            )
            for by in self.by
        ]
        self._key = [fields[of] for of in source.key]
        self._keys = field_frame(self._key, [])

    def entities_of(self, values: Inside) -> list[_Entity]:
        """Those that a request reads, or a row is of."""
        every = [(by, tuple(values.get(column) for column in by)) for by in self.by]
        return [(by, own) for by, own in every if None not in own]

    def add(self, rows: pl.LazyFrame | pl.DataFrame) -> None:
        """Of those of these rows that are of the entities, ask for every other version too."""
        key = list(self._source.key)
        types = {name: dtype for frame in (*self._entities, self._keys) for name, dtype in frame.schema.items()}
        lazy = scan_fields(self._source.name, self._read, rows).select(pl.col(of).cast(to) for of, to in types.items())
        own = [
            lazy.join(entities.lazy(), on=by, how="semi").select(key)
            for by, entities in zip(self.by, self._entities, strict=True)
        ]
        self._keys = pl.concat([self._keys, *pl.collect_all(own)]).unique()

    def add_keys(self, keys: Iterable[bytes]) -> None:
        """Ask for all versions of these keys of a log."""
        self._keys = pl.concat([self._keys, self.key_frame(keys)]).unique()

    def of(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Those of some typed rows that are asked for by their key."""
        return rows.join(self._keys, on=self._source.key, how="semi", maintain_order="left")

    def holds(self, keys: Sequence[bytes]) -> list[bool]:
        """Which keys of a log are asked for."""
        if not self._keys.height:
            return [False] * len(keys)
        number = pl.int_range(pl.len()).alias("__number")
        places = set(self.of(self.key_frame(keys).with_columns(number))["__number"].to_list())
        return [place in places for place in range(len(keys))]

    def key_frame(self, keys: Iterable[bytes]) -> pl.DataFrame:
        """Keys of a log as a frame."""
        names = self._source.key
        return field_frame(self._key, [dict(zip(names, key_values(key), strict=True)) for key in keys])
