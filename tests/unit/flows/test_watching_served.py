"""What a look reads of the answers of a served model."""

import json

import polars as pl

from cumulant.core.plan import Source
from cumulant.flows.monitoring.served_log import ServedModel, _probabilities

MODEL = ServedModel(
    name="m", task="multiclass", classes=("a", "b", "c"), request=(), source=Source("rows", ("id",), None, ())
)


def test_answers_that_tell_no_or_not_all_probabilities_have_no_score_beside_whole_ones():
    whole, part = {"a": 0.5, "b": 0.25, "c": 0.25}, {"a": 0.75, "b": 0.25}
    answers = [
        {"prediction": "a", "probabilities": whole},
        {"prediction": "a"},
        {"prediction": "a", "probabilities": part},
    ]
    for order in ([0, 1, 2], [2, 1, 0]):
        found = _probabilities(pl.Series([json.dumps(answers[place]) for place in order]), MODEL)
        assert [None if one is None else list(one) for one in found.to_list()] == [
            [0.5, 0.25, 0.25] if place == 0 else None for place in order
        ]
