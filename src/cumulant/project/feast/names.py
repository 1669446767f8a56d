"""Names of a Feast repository as names of a project."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Sequence

from cumulant.project.feast.imported import ROWS

#: names that the features file imports
_RESERVED = frozenset({"col", "source", "when"})


def source_names(names: Sequence[str]) -> dict[str, str]:
    """Names in the project file of sources in Feast, whose names may be paths."""
    result: dict[str, str] = {}
    for name in names:
        stem = name.rstrip("/").rpartition("/")[2].removesuffix(".parquet") if "/" in name else name
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).lstrip("_-0123456789")[:56] or "source"
        result[name] = unused(plain, (ROWS, *result.values()))
    return result


def public_name(text: str) -> str:
    """`text` as the name of a public variable; empty where nothing is left of it."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_")
    if name[:1].isdigit():
        name = f"f_{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in _RESERVED else name


def feature_name(text: str) -> str:
    """`text` as the name of a feature: `feature` where it has no ASCII letter or digit."""
    return public_name(text) or "feature"


def project_name(text: str) -> str:
    """The name of the model of a project in Feast."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).lstrip("_-0123456789")[:63] or "features"


def unused(name: str, taken: Collection[str]) -> str:
    """`name`, with a number where something has it already."""
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique
