"""Whether rows with a label differ from those without: at its stated rate where they do not."""

import numpy as np
import pytest

from cumulant.monitoring.performance.selection import chance_of_selection


@pytest.mark.parametrize("ties", [False, True])
def test_labels_drawn_at_random_are_called_a_selection_at_the_stated_rate(ties):
    generator = np.random.default_rng(0)
    window = np.repeat(np.arange(5), 60)
    chances = []
    for _ in range(1000):
        answer = generator.normal(size=300) + window
        answer = np.round(answer) if ties else answer
        chances.append(chance_of_selection(answer, generator.random(300) < 0.9, window))
    assert 0.03 < np.mean(np.array(chances) < 0.05) < 0.07


def test_a_selection_by_answers_is_seen_and_nothing_to_compare_is_none():
    generator = np.random.default_rng(0)
    answer, window = generator.random(400), np.repeat([0, 1], 200)
    assert chance_of_selection(answer, generator.random(400) > 0.3 * answer, window) < 0.01
    # All labels of one window and none of the other: windows differ, and rows within them cannot.
    assert chance_of_selection(answer + window, window == 1, window) == 1.0
    assert chance_of_selection(np.ones(400), generator.random(400) < 0.5, window) == 1.0
