"""Whether labels that are missing are told to be a selection."""

import numpy as np
import polars as pl
import pytest

from cumulant.flows.monitoring.late_labels import LabelledWindows


def selection_notes(parts):
    found = LabelledWindows()
    for part in parts:
        found.add(part)
    return found.notes()


@pytest.mark.parametrize("several", [False, True])
def test_labels_of_a_class_that_are_late_are_told(several):
    generator = np.random.default_rng(0)
    score = generator.beta(1, 7, 400)
    truth = (generator.random(400) < score).astype(float)
    each = np.column_stack([1 - score, score / 2, score / 2])
    kind = pl.Array(pl.Float64, 3)
    held = pl.Series("score", each, dtype=kind) if several else pl.Series("score", score)

    def window(labelled):
        value = pl.Series("value", np.where(labelled, truth, np.nan)).fill_nan(None)
        return pl.DataFrame([held, value])

    every, none = np.ones(400, dtype=bool), np.zeros(400, dtype=bool)
    [note] = selection_notes([window(truth == 0), window(every)])
    assert "label_delay" in note
    assert selection_notes([window(every), window(none), window(generator.random(400) < 0.9)]) == []
    assert selection_notes([]) == []


def test_accounts_without_labels_that_hardly_move_the_scores_are_no_note():
    for seed in range(5):
        generator = np.random.default_rng(seed)
        level, missing = generator.beta(2, 5, 1000), generator.random(1000) < 0.05
        parts = []
        for _ in range(20):
            account = generator.integers(0, 1000, 500)
            score = np.clip(level[account] + generator.normal(0, 0.02, 500), 0.01, 0.99)
            value = pl.Series("value", (generator.random(500) < score).astype(float))
            parts.append(pl.DataFrame([pl.Series("score", score), value.set(pl.Series(missing[account]), None)]))
        assert selection_notes(parts) == []
