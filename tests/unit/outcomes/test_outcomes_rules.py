"""The matching rules against a slow model that reads like the documentation."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cumulant.outcomes.matching import filter_usable, match_labels, resolve_labels

START = datetime(2026, 1, 1, tzinfo=UTC)
IDS, KEYS, MODELS = ("i1", "i2"), ("k1", "k2", None), ("m", "n")

predictions = st.lists(
    st.tuples(st.sampled_from(IDS), st.sampled_from(KEYS), st.sampled_from(MODELS)), min_size=1, max_size=5
)
facts = st.lists(
    st.tuples(
        st.sampled_from([*IDS, "k1", "k2", "nobody"]),
        st.sampled_from(["", "m", "n"]),
        st.integers(0, 4),
        st.sampled_from(["true", "false"]),
        st.sampled_from(["", "", "wrong type"]),
        st.sampled_from([1.0, 2.0]),
    ),
    max_size=14,
)


def slow(prediction, said, now):
    """What is known of one prediction, by going through everything."""
    request, key, model = prediction
    mine = [one for one in said if one[0] in (request, key) and one[1] in ("", model) and not one[4] and one[2] <= now]
    if not mine:
        return None
    newest = max(one[2] for one in mine)
    last = {one[3] for one in mine if one[2] == newest}
    if len(last) > 1:
        return None, None, None, newest, "contradicted"
    (label,) = last
    weight = max(one[5] for one in mine if one[2] == newest)
    state = "corrected" if any(one[3] != label for one in mine) else "labelled"
    return label, float(label == "true"), weight, newest, state


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(predictions, facts, st.integers(0, 4))
def test_the_join_says_what_the_rules_say(rows, said, now):
    left = pl.DataFrame(
        {
            "place": range(len(rows)),
            "model": [one[2] for one in rows],
            "id_ref": [one[0] for one in rows],
            "key_ref": [one[1] for one in rows],
        },
        schema_overrides={"key_ref": pl.String},
    )
    right = pl.DataFrame(
        {
            "ref": [one[0] for one in said],
            "model": [one[1] for one in said],
            "known_time": [START + timedelta(days=one[2]) for one in said],
            "label": [one[3] for one in said],
            "value": [float(one[3] == "true") for one in said],
            "weight": [one[5] for one in said],
            "problem": [one[4] for one in said],
        },
        schema={
            "ref": pl.String,
            "model": pl.String,
            "known_time": pl.Datetime("us", "UTC"),
            "label": pl.String,
            "value": pl.Float64,
            "weight": pl.Float64,
            "problem": pl.String,
        },
    )
    found = resolve_labels(match_labels(left, filter_usable(right, START + timedelta(days=now))), ["place"])
    told = {row[0]: (*row[1:4], (row[4] - START).days, row[5]) for row in found.rows()}
    assert told == {place: expected for place, row in enumerate(rows) if (expected := slow(row, said, now)) is not None}
