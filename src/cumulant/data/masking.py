"""Keyed hashes: how personal values look wherever a person may see them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

HIDDEN = "#hidden"


def mask(value: object, salt: bytes) -> str:
    """`value` as a keyed hash: `#` and 12 hexadecimal digits of HMAC-SHA256 under `salt`.

    The same value and salt give the same text, so that rows can be followed. Without a salt nothing can be
    followed and nothing guessed: the text is `#hidden`.
    """
    if not salt:
        return HIDDEN
    return "#" + hmac.new(salt, str(value).encode(), hashlib.sha256).hexdigest()[:12]


def mask_frame(frame: pl.DataFrame, personal: Collection[str], salt: bytes) -> pl.DataFrame:
    """`frame` with the personal columns as keyed hashes; nulls stay null."""
    import polars as pl

    hashed = []
    for name in frame.columns:
        if name in personal:
            values = [None if value is None else mask(value, salt) for value in frame[name].to_list()]
            hashed.append(pl.Series(name, values, dtype=pl.String))
    return frame.with_columns(hashed) if hashed else frame
