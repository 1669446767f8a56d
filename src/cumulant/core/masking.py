"""Keyed hashes that stand for personal values wherever they can be read."""

from __future__ import annotations

import hmac
import re

HIDDEN = "#hidden"
#: no text of a row begins like it, so that no row's hash is a fingerprint
_FINGERPRINTED = b"\0cumulant salt"
_MASKED = re.compile(r"#[0-9a-f]{32}")


def mask(value: object, salt: bytes) -> str:
    """`value` as a keyed hash of 128 bits: `#` and 32 hexadecimal digits of HMAC-SHA256 under `salt`.

    The same value and salt give the same text, so that rows can be followed. Without a salt nothing can be
    followed and nothing guessed: the text is `#hidden`.
    """
    if not salt:
        return HIDDEN
    return "#" + hmac.digest(salt, str(value).encode(), "sha256").hex()[:32]


def is_masked(value: object) -> bool:
    """Whether a value is a result of `mask`."""
    return isinstance(value, str) and (value == HIDDEN or _MASKED.fullmatch(value) is not None)


def fingerprint(salt: bytes) -> str:
    """16 hexadecimal digits of HMAC-SHA256 that differ between salts and reveal nothing; empty without a salt."""
    return hmac.digest(salt, _FINGERPRINTED, "sha256").hex()[:16] if salt else ""
