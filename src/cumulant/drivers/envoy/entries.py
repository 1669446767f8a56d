"""Entries that several parts of Envoy's configuration have."""

from __future__ import annotations

from typing import Any

TYPES = "type.googleapis.com"
OVERWRITE = "OVERWRITE_IF_EXISTS_OR_ADD"
#: seconds: Envoy counts milliseconds, and nothing waits for a year
_SHORTEST, _LONGEST = 0.001, 31_536_000.0


def seconds(number: float) -> str:
    """A time above zero, with at most nine decimals and no exponent: for another one Envoy refuses the whole file."""
    return f"{min(max(number, _SHORTEST), _LONGEST):.9f}".rstrip("0").rstrip(".") + "s"


def extension(name: str, kind: str, **settings: Any) -> dict[str, Any]:
    """An extension of Envoy by its name and the type of its settings."""
    return {"name": name, "typed_config": {"@type": f"{TYPES}/{kind}", **settings}}


def header(name: str, value: str, action: str = OVERWRITE) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": action}
