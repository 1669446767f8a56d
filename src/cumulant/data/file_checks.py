"""What the files of a source show together: the same numbers written in several ways."""

from __future__ import annotations

from collections.abc import Sequence

from cumulant.data.parts import PartFacts

_NAMED = 3


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def padding_warnings(urls: Sequence[str], parts: Sequence[PartFacts]) -> list[str]:
    """Columns of numbers that some files write with leading zeros, and others without or with another width."""
    columns = {field.name for part in parts for field in part.fields if field.padded is not None}
    found = []
    for column in sorted(columns):
        widths = [_width(part, column) for part in parts]
        widest = max(width for width in widths if width is not None)
        padded = [url for url, width in zip(urls, widths, strict=True) if width == widest]
        others = [
            url
            for url, width, part in zip(urls, widths, parts, strict=True)
            if width != widest and _is_shorter(part, column, widest)
        ]
        if others:
            found.append(
                f"{column} is written with leading zeros to {widest} digits in {listed(padded)} and not so in "
                f"{listed(others)}; both are read as one number, as declared: set type: str where they differ"
            )
    return found


def _width(part: PartFacts, column: str) -> int | None:
    return next((field.padded for field in part.fields if field.name == column), None)


def _is_shorter(part: PartFacts, column: str, digits: int) -> bool:
    """Whether the part may hold a number of fewer digits; of a personal column no extremes are known."""
    if column not in part.profile or part.profile[column].nulls == part.profile.rows:
        return False
    low, high = part.profile[column].min, part.profile[column].max
    if low is None or high is None:
        return True
    least = 0 if low <= 0 <= high else min(abs(low), abs(high))
    return bool(least < 10 ** (digits - 1))
