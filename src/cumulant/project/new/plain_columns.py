"""Columns that a project cannot read as they are: lists and structs are left out, too wide or mixed values are text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data.spec import SourceSpec

#: where a new project leaves columns out
FILE, FUNCTION = "prepare.py", "prepare"
_LOW, _HIGH = -(2**63), 2**63 - 1


def nested(schema: pl.Schema) -> dict[str, str]:
    """The columns that hold no plain value, each with what it holds."""
    from cumulant.data.text.casts import natural_type

    return {name: str(dtype).partition("(")[0] for name, dtype in schema.items() if natural_type(dtype) is None}


def too_wide(raw: pl.DataFrame) -> list[str]:
    """Whole numbers of which some do not fit into 64 bits with a sign."""
    import polars as pl

    wide = [name for name, dtype in raw.schema.items() if dtype in (pl.UInt64, pl.Int128, pl.UInt128)]
    ends = {name: (raw[name].min(), raw[name].max()) for name in wide}
    return [name for name, (low, high) in ends.items() if not _fits(low) or not _fits(high)]


def _fits(value: Any) -> bool:
    return value is None or _LOW <= int(value) <= _HIGH


def as_plain(raw: pl.DataFrame, spec: SourceSpec) -> tuple[SourceSpec, list[str]]:
    """The declaration by which every column of `raw` can be read, and a note on each that is read otherwise."""
    from cumulant.data.spec import RuleSpec

    notes = []
    rules, wide = dict(spec.rules), too_wide(raw)
    for name in wide:
        rules[name] = msgspec.structs.replace(rules.get(name, RuleSpec()), type="str")
    if wide:
        notes.append(f"read as text, also in requests, for its numbers need more than 64 bits: {', '.join(wide)}")
    if left_out := nested(raw.schema):
        named = ", ".join(f"{name} ({kind})" for name, kind in left_out.items())
        notes.append(f"not used by the model: {named}: no plain values; {FILE} leaves them out, or takes them apart")
        spec = msgspec.structs.replace(spec, prepare=f"{FILE}:{FUNCTION}")
    return msgspec.structs.replace(spec, rules=rules), notes


def storable(raw: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """The table without columns of Python objects, which no file can hold; and a note on them."""
    import polars as pl

    objects = [name for name, dtype in raw.schema.items() if dtype == pl.Object]
    return raw.drop(objects), [f"left out: {', '.join(objects)} (Python objects)"] if objects else []


def prepare_text(quoted: list[str]) -> str:
    """The file that leaves columns out; `quoted` are their names as Python writes them."""
    lines = [
        '"""What is done to the rows of the source before anything else reads them."""',
        "",
        "import polars as pl",
        "",
        "",
        f"def {FUNCTION}(rows: pl.LazyFrame) -> pl.LazyFrame:",
        '    """Leave out lists and structs, which no feature can read. Take parts of them here, as new columns."""',
        f"    return rows.drop({', '.join(quoted)}, strict=False)",
    ]
    return "\n".join([*lines, ""])


def mixed_as_text(frame: Any) -> tuple[Any, list[str]]:
    """A pandas frame whose columns of mixed types, which no table can hold, are text; and a note on them."""
    import pandas as pd

    from cumulant.data.files.user_frames import unreadable_columns

    reasons = unreadable_columns(frame)
    if not reasons or not frame.columns.is_unique:  # whoever reads it refuses names that are there twice
        return frame, []
    texts = {
        name: frame[name].map(lambda value: None if _missing(value) else str(value)).astype(object) for name in reasons
    }
    named = ", ".join(f"{name} ({reason})" for name, reason in reasons.items())
    return pd.DataFrame({**{name: frame[name] for name in frame.columns}, **texts}), [f"read as text: {named}"]


def _missing(value: Any) -> bool:
    """Whether a single value stands for none: None, NaN, NaT."""
    return value is None or (not hasattr(value, "__len__") and value != value)  # noqa: PLR0124 - NaN is not itself
