"""Whether rows with a label differ from those without: at its stated rate where they do not."""

import numpy as np
import pytest

from cumulant.monitoring.performance.selection import selection


@pytest.mark.parametrize(("ties", "windows"), [(False, 5), (True, 5), (False, 10)])
def test_labels_drawn_at_random_are_called_a_selection_at_most_at_the_stated_rate(ties, windows):
    generator = np.random.default_rng(0)
    window = np.repeat(np.arange(windows), 300 // windows)
    chances = []
    for _ in range(1000):
        answer = generator.normal(size=300) + window
        answer = np.round(answer) if ties else answer
        chances.append(selection(answer, generator.random(300) < 0.9, window).chance)
    assert (0.03 if windows == 5 else 0) < np.mean(np.array(chances) < 0.05) < 0.07


def test_a_selection_by_answers_is_seen_and_nothing_to_compare_is_none():
    generator = np.random.default_rng(0)
    answer, window = generator.random(400), np.repeat([0, 1], 200)
    assert selection(answer, generator.random(400) > 0.3 * answer, window).chance < 0.01
    # All labels of one window and none of the other: windows differ, and rows within them cannot.
    assert selection(answer + window, window == 1, window).chance == 1.0
    assert selection(np.ones(400), generator.random(400) < 0.5, window).chance == 1.0
