"""Texts of values on pages."""

from __future__ import annotations

import msgspec

from cumulant.flows.reports.wording import value

#: characters of a value that a table shows
_SHOWN = 200


def plain(content: object) -> str:
    """A value of a row: numbers as they are, a dash for nothing, nested ones as JSON; at most 200 characters."""
    if content is None or content == "":
        return "–"
    if isinstance(content, bool):
        return "true" if content else "false"
    if isinstance(content, dict | list):
        text = msgspec.json.encode(content).decode()
    elif isinstance(content, int | float | str):
        text = str(content)
    else:
        text = value(content)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
