"""Paths of HTTP routes, in which a part in braces stands for any text."""

from __future__ import annotations

from collections.abc import Sequence


def fits_template(template: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether a path in its parts is one of `template`, as `["v1", "models", "{model}"]`."""
    return len(template) == len(parts) and all(
        pattern.startswith("{") or pattern == part for pattern, part in zip(template, parts, strict=True)
    )
