"""What was scored beside answers: found for some rows at a time, as if all of it were held."""

import random

import polars as pl
import pytest

from cumulant.data.parts import collected_frames
from cumulant.data.parts.spill import spill_in
from cumulant.flows.review import mirrored_scores
from cumulant.flows.review.mirrored_scores import MirroredRows
from cumulant.review import reasons

SCHEMA = {"id": pl.String(), "row": pl.Int32(), "outputs": pl.String(), "score": pl.Float64()}


def rows(chance, count):
    found = [
        {
            "id": f"r{chance.randrange(40)}",
            "row": chance.randrange(3),
            "score": chance.choice([None, chance.random()]),
            "outputs": chance.choice(['{"prediction": "a"}', '{"prediction": "b"}', "{}", "broken"]),
        }
        for _ in range(count)
    ]
    return pl.DataFrame(found, schema=SCHEMA)


@pytest.mark.parametrize("seed", range(20))
def test_rows_disagree_as_where_all_mirrored_rows_are_held(monkeypatch, seed):
    monkeypatch.setattr(collected_frames, "_HELD", 25)
    monkeypatch.setattr(mirrored_scores, "_PART", 7)
    chance = random.Random(seed)
    frames = [rows(chance, chance.randrange(1, 30)) for _ in range(8)]
    whole = pl.concat(frames)
    with spill_in(None) as spill:
        collected = MirroredRows(spill)
        for one in frames:
            collected.add(one)
        index = collected.finish()
        for _ in range(5):
            answered = rows(chance, chance.randrange(12))
            some = index.of(answered)
            assert some.height < whole.height
            assert (
                reasons.score_disagreement(answered, some).tolist()
                == reasons.score_disagreement(answered, whole).tolist()
            )


def test_nothing_is_found_where_nothing_was_mirrored():
    with spill_in(None) as spill:
        assert MirroredRows(spill).finish() is None
