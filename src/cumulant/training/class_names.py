"""Classes of a target as texts, and those that may be none. Imports no engine: `plan` says them of counts alone."""

from __future__ import annotations

from collections.abc import Mapping

#: one of several classes is rare below this share of the rows, and of the mean rows of a class
_RARE, _RARE_OF_MEAN = 0.01, 0.1


def rare_classes(name: str, counts: Mapping[str, int]) -> tuple[str, ...]:
    """A warning of each of more than two classes that has few of the rows: it may be a value that is none."""
    rows = sum(counts.values())
    rare = min(_RARE, _RARE_OF_MEAN / max(len(counts), 1)) * rows
    return tuple(
        f'the class "{text}" of the target {name} has {count:,} of {rows:,} rows: if it is no class, name '
        f"the others in rules: {{{name}: {{in: [...]}}}}, and its rows go to quarantine"
        for text, count in counts.items()
        if len(counts) > 2 and count < rare
    )


def label(value: object) -> str:
    """A class as text: `true`, `1`, `setosa`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
