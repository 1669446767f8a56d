"""Keyed hashes: how personal values look wherever a person may see them."""

from __future__ import annotations

import hmac

HIDDEN = "#hidden"


def mask(value: object, salt: bytes) -> str:
    """`value` as a keyed hash: `#` and 12 hexadecimal digits of HMAC-SHA256 under `salt`.

    The same value and salt give the same text, so that rows can be followed. Without a salt nothing can be
    followed and nothing guessed: the text is `#hidden`.
    """
    if not salt:
        return HIDDEN
    return "#" + hmac.digest(salt, str(value).encode(), "sha256").hex()[:12]
