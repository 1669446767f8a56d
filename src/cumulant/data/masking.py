"""Frames whose personal columns are keyed hashes."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from cumulant.core.masking import mask

if TYPE_CHECKING:
    import polars as pl


def mask_frame(frame: pl.DataFrame, personal: Collection[str], salt: bytes) -> pl.DataFrame:
    """`frame` with the personal columns as keyed hashes; nulls stay null."""
    import polars as pl

    hashed = []
    for name in frame.columns:
        if name in personal:
            values = [None if value is None else mask(value, salt) for value in frame[name].to_list()]
            hashed.append(pl.Series(name, values, dtype=pl.String))
    return frame.with_columns(hashed) if hashed else frame
