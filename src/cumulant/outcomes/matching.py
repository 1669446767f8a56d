"""Matching of labels: which labels are a prediction's, and their joint value. Pure frames, no files.

Of all labels of a prediction by a moment, the one that became known last counts. Two values that became known at the
same moment contradict each other: then it has no label, until a newer one is known. A repeated label counts once.
"""

from __future__ import annotations

import polars as pl

from cumulant.outcomes.prediction_refs import BY_KEY

_TIME = pl.Datetime("us", "UTC")
#: columns of facts that the rules read, and their kinds
READ: dict[str, pl.DataType] = {
    "ref": pl.String(),
    "model": pl.String(),
    "known_time": _TIME,
    "label": pl.String(),
    "value": pl.Float64(),
    "weight": pl.Float64(),
    "problem": pl.String(),
}
#: whether a fact is a label
VALID = pl.col("problem") == ""
#: whether a fact names its prediction by key and moment
NAMED_BY_KEY = pl.col("ref").str.starts_with(BY_KEY)


def is_known_by(now: object) -> pl.Expr:
    """Whether a fact is known by `now`."""
    return pl.col("known_time") <= pl.lit(now).cast(_TIME)


def filter_usable(facts: pl.DataFrame, now: object) -> pl.DataFrame:
    """The facts that are labels and known by `now`."""
    return facts.filter(VALID & is_known_by(now))


def has_key_refs(facts: pl.DataFrame) -> bool:
    """Whether any of them names its prediction by key and moment."""
    return facts.select(NAMED_BY_KEY.any()).item() is True


def match_labels(predictions: pl.DataFrame, facts: pl.DataFrame) -> pl.DataFrame:
    """The pairs of a prediction (`place`) and its facts.

    `predictions` has `place`, `model`, `id_ref` and `key_ref`; `facts` are usable. A fact that names a model is for
    predictions of that model only.
    """
    keyed = predictions["key_ref"].null_count() < predictions.height
    matches = [
        predictions.select("place", pl.col("model").alias("of"), pl.col(name).alias("ref"))
        .filter(pl.col("ref").is_not_null())
        .join(facts, on="ref")
        for name in (("id_ref", "key_ref") if keyed else ("id_ref",))
    ]
    pairs = pl.concat(matches)
    return pairs.filter((pl.col("model") == "") | (pl.col("model") == pl.col("of"))).drop("of")


def resolve_labels(pairs: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """The label of each prediction: `label`, `value`, `weight`, `label_known_time`, and `state`.

    `state` is `labelled`, `corrected` (something else was known before) or `contradicted` (then the label is null).
    """
    several = pairs.select(by).is_duplicated()
    # Most predictions have one label: several are resolved for the others alone.
    once = pairs.filter(~several).select(
        *by,
        "label",
        "value",
        "weight",
        pl.col("known_time").alias("label_known_time"),
        pl.lit("labelled").alias("state"),
    )
    return pl.concat([once, _resolve_several(pairs.filter(several), by)]) if several.any() else once


def _resolve_several(pairs: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """As `resolve_labels`, of predictions with several labels."""
    labels = pairs.group_by([*by, "known_time", "label"]).agg(pl.col("value").first(), pl.col("weight").max())
    newest = labels.filter(pl.col("known_time") == pl.col("known_time").max().over(by))
    answer = newest.group_by(by).agg(
        pl.len().alias("at_once"),
        pl.col("label").first(),
        pl.col("value").first(),
        pl.col("weight").first(),
        pl.col("known_time").first().alias("label_known_time"),
    )
    before = labels.group_by(by).agg(pl.col("label").n_unique().alias("ever"))
    several = pl.col("at_once") > 1
    return answer.join(before, on=by, nulls_equal=True).select(
        *by,
        *(pl.when(several).then(None).otherwise(pl.col(name)).alias(name) for name in ("label", "value", "weight")),
        "label_known_time",
        pl.when(several)
        .then(pl.lit("contradicted"))
        .when(pl.col("ever") > 1)
        .then(pl.lit("corrected"))
        .otherwise(pl.lit("labelled"))
        .alias("state"),
    )
