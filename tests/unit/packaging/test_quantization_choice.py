"""Which form of a graph is chosen, and the bounds that decide it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.packaging.quantize.choice import ORIGINAL, FormTrial, choose_form
from cumulant.packaging.quantize.decisions import exact_limit, rows_to_show
from cumulant.packaging.quantize.measure import FormTiming, agreement_bound, measure_agreement


def pace(ratio, noise=0.01, rows=1):
    return FormTiming(rows, 1e-3 * ratio, ratio, ratio - noise, ratio + noise)


trials = st.lists(
    st.builds(
        lambda size, share, ratio, noise, fault: FormTrial(
            "form", size, share, () if fault else (pace(ratio, noise), pace(ratio, noise, 32)), fault
        ),
        size=st.integers(1, 200),
        share=st.floats(0, 1),
        ratio=st.floats(0.1, 4),
        noise=st.floats(0, 0.5),
        fault=st.sampled_from(["", "", "", "could not be made"]),
    ),
    max_size=8,
).map(
    lambda found: [
        FormTrial(ORIGINAL, 100, 1.0, (pace(1, 0), pace(1, 0, 32))),
        *(one._replace(kind=f"form {k}") for k, one in enumerate(found)),
    ]
)


@settings(max_examples=300)
@given(found=trials, loss=st.floats(0, 0.5))
def test_size_takes_the_smallest_within_the_loss(found, loss):
    candidates = choose_form(found, aim="size", accuracy_loss=loss)
    assert [one.kind for one in candidates] == [one.kind for one in found]
    (chosen,) = [one for one in candidates if one.chosen]
    allowed = [one.size for one in found[1:] if not one.fault and one.agreement >= 1 - loss - 1e-12 and one.size < 100]
    assert chosen.size == min(allowed, default=100)
    assert (chosen.kind == ORIGINAL) == (not allowed)
    assert all(one.reason for one in candidates)


@settings(max_examples=300)
@given(found=trials, loss=st.floats(0, 0.5))
def test_speed_takes_only_what_is_faster_beyond_noise(found, loss):
    (chosen,) = [one for one in choose_form(found, aim="speed", accuracy_loss=loss) if one.chosen]
    trial = next(one for one in found if one.kind == chosen.kind)
    faster = [
        one.paces[0].ratio
        for one in found[1:]
        if not one.fault and one.agreement >= 1 - loss - 1e-12 and one.paces[0].high < 0.95
    ]
    assert (chosen.kind == ORIGINAL) == (not faster)
    if faster:
        assert trial.paces[0].ratio == pytest.approx(min(faster))


def test_a_form_that_is_slower_at_one_number_of_rows_is_not_faster():
    found = [FormTrial(ORIGINAL, 100, 1.0, (pace(1, 0),)), FormTrial("mixed", 50, 1.0, (pace(0.5), pace(1.2, rows=32)))]
    original, other = choose_form(found, aim="speed", accuracy_loss=0.1)
    assert original.chosen
    assert other.reason == "slower than the original: 0.50 of the time at 1 rows, 1.20 of the time at 32 rows"


def test_a_lost_number_is_no_agreement():
    expected = np.array([[0.2, 0.8], [np.nan, 0.4]], np.float32)
    assert measure_agreement([expected], [expected.copy()]) == 1
    found = expected.copy()
    found[0, 1] = np.nan
    assert measure_agreement([expected], [found]) == 0
    assert measure_agreement([expected[:, 0]], [np.array([np.inf, 0], np.float32)]) == 0


def test_the_worst_output_counts_and_labels_are_compared_as_they_are():
    labels, scores = np.array([1, 2, 3, 4]), np.eye(4, dtype=np.float32)
    assert measure_agreement([labels, scores], [np.array([1, 2, 3, 9]), scores]) == 0.75
    assert measure_agreement([labels, scores], [labels, scores[[0, 1, 3, 2]]]) == 0.5


@pytest.mark.parametrize("rows", [5, 60, 299, 1000])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_the_bound_is_the_share_at_which_as_many_agree_in_one_of_twenty(rows, share):
    """By the sum of the binomial probabilities, which the bound inverts."""
    hits = math.floor(share * rows)
    low = exact_limit(hits, rows)
    more = sum(math.comb(rows, k) * low**k * (1 - low) ** (rows - k) for k in range(hits, rows + 1))
    assert more == pytest.approx(0.05 if hits else 1.0, rel=1e-6)
    high = exact_limit(hits, rows, upper=True)
    fewer = sum(math.comb(rows, k) * high**k * (1 - high) ** (rows - k) for k in range(hits + 1))
    assert fewer == pytest.approx(0.05 if hits < rows else 1.0, rel=1e-6)


@pytest.mark.parametrize("loss", [0.003, 0.01, 0.05, 0.3])
def test_the_fewest_rows_can_show_the_loss_and_one_less_cannot(loss):
    rows = rows_to_show(loss)
    assert exact_limit(rows, rows) >= 1 - loss - 1e-12
    assert exact_limit(rows - 1, rows - 1) < 1 - loss


def test_a_form_at_the_limit_on_few_rows_is_not_taken():
    """99% of 1,000 rows may well be 98.3% of others; 99.7% shows 99%."""
    original = FormTrial(ORIGINAL, 100, 1.0, (pace(1, 0),))
    edge = FormTrial("edge", 40, 0.99, (pace(1),), bound=exact_limit(990, 1000), distance=0.02)
    safe = FormTrial("safe", 50, 0.997, (pace(1),), bound=exact_limit(997, 1000), distance=0.01)
    found = choose_form([original, edge, safe], aim="size", accuracy_loss=0.01)
    assert [one.kind for one in found if one.chosen] == ["safe"]
    assert "which shows 98.31% with 95% confidence, less than the 99.00% asked for" in found[1].reason


def test_of_several_outputs_the_worst_bound_counts():
    labels, values = np.arange(1000), np.linspace(1, 2, 1000, dtype=np.float32)
    assert agreement_bound([values], [values]) == 1
    assert agreement_bound([labels, values], [labels, values]) == pytest.approx(exact_limit(1000, 1000))
