"""Parallel coordinates of trials: which parameters are axes, where values are, and what is drawn of odd ones."""

import re

import pytest

from cumulant.console.parallel_coordinates import TrialLine, changing_parameters, parallel_coordinates


def lines(*trials):
    return [TrialLine(number, params, score) for number, (params, score) in enumerate(trials)]


def heights(drawing):
    """The heights of each line, by trial."""
    found = re.findall(r'<polyline points="([^"]+)"[^>]*><title>trial (\d+)', str(drawing))
    return {int(number): [float(point.split(",")[1]) for point in points.split()] for points, number in found}


def test_parameters_that_never_change_are_no_axes():
    trials = lines(({"depth": 3, "seed": 1, "rate": 0.1}, 0.5), ({"depth": 5, "seed": 1, "rate": 0.2}, 0.4))
    assert set(changing_parameters(trials)) == {"depth", "rate"}
    drawing = parallel_coordinates(trials, score="log_loss", higher=False, best=1)
    assert "the best is number 1" in drawing.text
    assert "seed" not in str(drawing)


def test_the_better_the_score_the_darker_the_line_in_either_direction():
    trials = lines(*(({"depth": number}, number / 10) for number in range(8)))
    for higher, darkest in ((True, 7), (False, 0)):
        drawing = str(parallel_coordinates(trials, score="s", higher=higher, best=None))
        assert re.search(rf'shade3"><title>trial {darkest}:', drawing)


def test_wide_ranges_are_logarithmic_and_texts_stand_evenly():
    trials = lines(
        ({"rate": 0.001, "kind": "a"}, 0.1), ({"rate": 0.1, "kind": "b"}, 0.2), ({"rate": 10.0, "kind": "c"}, 0.3)
    )
    drawn = heights(parallel_coordinates(trials, score="s", higher=True, best=None))
    for axis in range(3):
        low, middle, high = (drawn[number][axis] for number in range(3))
        assert low > middle > high
        assert middle == pytest.approx((low + high) / 2)


def test_a_trial_without_a_parameter_has_a_line_past_its_axis():
    trials = lines(({"depth": 3, "rate": 1}, 0.1), ({"depth": 4, "rate": 2}, 0.2), ({"depth": 5}, 0.3))
    drawn = heights(parallel_coordinates(trials, score="s", higher=True, best=None))
    assert [len(drawn[number]) for number in range(3)] == [3, 3, 2]


@pytest.mark.parametrize(
    "trials",
    [
        [],
        lines(({"a": 1}, 0.1)),
        lines(({"a": 1}, 0.1), ({"a": 1}, 0.2)),
        lines(({"a": 1}, 0.1), ({"a": 2}, float("nan"))),
    ],
)
def test_with_nothing_to_compare_there_is_no_drawing(trials):
    assert parallel_coordinates(trials, score="s", higher=True, best=None) is None


def test_mixed_and_switched_values_are_texts():
    trials = lines(({"sample": True, "leaves": 31}, 0.1), ({"sample": False, "leaves": "all"}, 0.2))
    drawing = str(parallel_coordinates(trials, score="s", higher=True, best=0))
    assert ">True<" in drawing
    assert ">all<" in drawing
