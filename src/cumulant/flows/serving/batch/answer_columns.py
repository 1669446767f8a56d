"""Answers of many rows as columns, equal to `Scorer.decide` of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cumulant.servable.scorer import labels

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.servable import Reason, Servable
    from cumulant.servable.description import Floats

_HALF = 0.5


def decision_columns(scores: Floats, servable: Servable) -> pl.DataFrame:
    """`prediction`, `probability` and, of several classes, `probabilities`."""
    import polars as pl

    if servable.task == "regression":
        return pl.DataFrame({"prediction": scores})
    named = pl.Series(labels(servable))
    if servable.task == "multiclass":
        return _multiclass(scores, servable, named)
    cut = _HALF if servable.threshold is None else servable.threshold
    chosen = pl.Series((scores >= cut).astype("u4"))
    return pl.DataFrame({"prediction": named.gather(chosen), "probability": scores})


def _multiclass(scores: Floats, servable: Servable, named: pl.Series) -> pl.DataFrame:
    import polars as pl

    best = scores.argmax(axis=1).astype("u4")
    each = pl.DataFrame({name: scores[:, place] for place, name in enumerate(servable.classes)})
    return pl.DataFrame(
        {
            "prediction": named.gather(pl.Series(best)),
            "probability": scores.max(axis=1),
            "probabilities": each.to_struct(),
        }
    )


def reasons_column(reasons: Sequence[tuple[Reason, ...]], *, coded: bool) -> pl.Series:
    """A list a row of what the server's answers hold; with `coded`, also the texts of those features that have one."""
    import numpy as np
    import polars as pl
    import pyarrow as pa

    flat = [reason for row in reasons for reason in row]
    fields = {
        "feature": pa.array([reason.feature for reason in flat], pa.string()),
        "contribution": pa.array([reason.contribution for reason in flat], pa.float64()),
        "direction": pa.array([reason.direction for reason in flat], pa.string()),
    }
    if coded:
        fields["code"] = pa.array([reason.code or None for reason in flat], pa.string())
    ends = np.cumsum([0, *map(len, reasons)], dtype=np.int64)
    structs = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    return pl.Series("reasons", pa.LargeListArray.from_arrays(pa.array(ends), structs))
