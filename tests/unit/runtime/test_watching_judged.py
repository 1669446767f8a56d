"""Whether the labels of a window speak for all of its rows."""

import numpy as np
import polars as pl
import pytest

from cumulant.runtime.watching.judged import enough
from cumulant.runtime.watching.late import selection_notes


@pytest.mark.parametrize("several", [False, True])
def test_a_window_waits_for_labels_of_a_class_that_are_late(several):
    generator = np.random.default_rng(0)
    score = generator.beta(1, 7, 400)
    truth = (generator.random(400) < score).astype(float)
    each = np.column_stack([1 - score, score / 2, score / 2])
    kind = pl.Array(pl.Float64, 3)
    held = pl.Series("score", each, dtype=kind) if several else pl.Series("score", score)

    def window(labelled):
        value = pl.Series("value", np.where(labelled, truth, np.nan)).fill_nan(None)
        return pl.DataFrame([held, value]).with_columns(weight=pl.lit(None, pl.Float64))

    negatives_only = truth == 0
    assert negatives_only.mean() > 0.8
    assert not enough(window(negatives_only))
    [note] = selection_notes([window(negatives_only), window(np.ones(400, dtype=bool))])
    assert note.split(".")[0].endswith(": 1")
    assert selection_notes([window(np.ones(400, dtype=bool)), window(np.zeros(400, dtype=bool))]) == []
    assert enough(window(generator.random(400) < 0.9))
    assert enough(window(np.ones(400, dtype=bool)))
