"""The gate as the flows `train` and `evaluate` ask it: no version is judged on rows that it learned from."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import RefusedError
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.release.plan.release_plan import plan_release
from cumulant.flows.release.start.start import start_release
from cumulant.flows.stack.desired_state import change_desired_state
from cumulant.flows.training.evaluate import evaluate
from cumulant.flows.training.train import train
from cumulant.flows.training.window_uses import Reuse, WindowUse, level_of
from cumulant.project.file.loading import load
from cumulant.training.row_hash import places, row_hashes

#: a booster that learns its rows by heart
PROJECT = """\
version: 1
model: {name: kept}
data:
  visits: {path: visits.csv, key: visit}
features: features.py
training:
  target: bought
  trainers: [lightgbm]
  parameters: {lightgbm: {num_leaves: 60, min_child_samples: 2, learning_rate: 0.3}}
  trials: 1
  time: null
  folds: 2
  ensemble: 1
evaluation: {gate: {log_loss: {margin: 0.02}}}
"""
FEATURES = """\
from cumulant.features import source

row = source("visits").columns("x", "y", "z")
"""


def visits(count: int, *, begin: int = 0) -> pl.DataFrame:
    """Rows of one world: whoever takes more of it has the same rows first."""
    rng = np.random.default_rng(7)
    x, y, z = rng.normal(size=(3, 4000)).round(6)
    bought = rng.random(4000) < 1 / (1 + np.exp(1 - 2 * x - y))
    frame = pl.DataFrame({"visit": np.arange(4000), "x": x, "y": y, "z": z, "bought": bought})
    return frame[begin : begin + count]


def make(folder: Path, rows: pl.DataFrame) -> Path:
    folder.mkdir()
    rows.write_csv(folder / "visits.csv")
    (folder / "cumulant.yaml").write_text(PROJECT)
    (folder / "features.py").write_text(FEATURES)
    return folder


def learned(found):
    return {rule.against: rule for rule in found.verdict.rules if rule.metric == "log_loss"}


@pytest.mark.slow
def test_no_version_is_judged_on_rows_that_it_learned_from(tmp_path):
    """Equal models: a tenth more rows, in front of the others. With rows dealt anew the champion knew most of the test."""
    folder = make(tmp_path / "shop", visits(2000, begin=200))
    with load(folder) as project:
        who = project.principal()
        first = train(project, principal=who)
        rule = find_record(project, first.model).fitted.split.rule
        assert (rule.columns, rule.copies, rule.share) == (("visit",), False, 0.2)
        visits(2200).write_csv(folder / "visits.csv")
        second = train(project, principal=who)
        assert second.model.version == "2"
        rule = learned(second)["champion"]
        assert rule.word != "worse"
        assert rule.difference.low < 0 < rule.difference.high
        # The champion does as well on these rows as on its own test, not as on rows that it knows by heart.
        assert rule.reference.value == pytest.approx(first.evaluation.metrics["log_loss"].value, rel=0.15)
        # Most of the test rows have judged the first model: the second one's intervals are wider.
        assert (first.verdict.level, round(second.verdict.level, 3)) == (0.95, 0.972)
        assert any("another model was judged before on 9" in note for note in second.notes)
        # The keys are given anew: which rows a version learned from is not known any more, and nobody can tell.
        visits(2200).with_columns(pl.col("visit").reverse()).write_csv(folder / "visits.csv")
        verdict = evaluate(project, "kept/2", principal=who).judgement.verdict
        assert (verdict.passed, verdict.rules[-1].word) == (False, "cannot_tell")
        assert "not recognised" in verdict.text


def test_hashes_do_not_depend_on_the_other_rows():
    frame = visits(300).drop("visit")
    doubled = pl.concat([frame, frame[:50]])
    before, after = row_hashes(frame, frame.columns, copies=True), row_hashes(doubled, frame.columns, copies=True)
    assert (before == after[:300]).all()
    assert len(set(after.tolist())) == 350
    mixed = doubled.sample(fraction=1.0, shuffle=True, seed=3)
    assert sorted(row_hashes(mixed, frame.columns, copies=True)) == sorted(after)
    shares = places(row_hashes(pl.DataFrame({"key": np.arange(20_000)}), ["key"]))
    assert np.abs(np.histogram(shares, bins=10, range=(0, 1))[0] - 2000).max() < 200
    assert row_hashes(pl.DataFrame({"key": [1]}), ["key"]).tolist() == [8518482412311870710]


@pytest.mark.parametrize(
    ("uses", "earlier", "said"),
    [
        (1, 0.709, "another model was judged before on 71% of these test rows: the gate's intervals are at 95.874%"),
        (1, 1.0, "another model was judged before on these test rows: the gate's intervals"),
        (3, 3.0, "other models were judged before, 3 times, on these test rows: the gate's intervals"),
        (4, 1.0, "other models were judged before, 4 times, on an average of 25% of these test rows: the gate's"),
    ],
)
def test_the_note_of_earlier_uses_counts_whole_models(uses, earlier, said):
    use = WindowUse(model="a", at=datetime(2026, 1, 1, tzinfo=UTC), rows=100)
    (note,) = Reuse(use=use, uses=uses, earlier=earlier, level=level_of(earlier)).note
    assert note.startswith(said)


def test_of_many_models_without_information_one_in_twenty_passes_at_most():
    """Each passes at one end of its interval; the chances of any number of uses add up to a twentieth at most."""
    tails = [(1 - level_of(earlier)) / 2 for earlier in range(2000)]
    assert tails[0] == pytest.approx(0.025)
    assert sum(tails) <= 0.05
    assert tails == sorted(tails, reverse=True)
    assert level_of(0.5) == 0.95


@pytest.mark.slow
def test_the_champion_made_again_stays_and_a_change_of_what_callers_get_replaces_it(tmp_path):
    """Another setting alone gives the same model; a rule of its requests is another servable of the same model."""
    folder = make(tmp_path / "p", visits(1500))
    file = folder / "cumulant.yaml"
    project = PROJECT.replace(
        "[lightgbm]\n  parameters: {lightgbm: {num_leaves: 60,",
        "[linear, lightgbm]\n  parameters: {lightgbm: {num_leaves: 6,",
    )
    file.write_text(project)
    with load(folder) as loaded:
        first = train(loaded, principal=loaded.principal())
    assert first.promoted
    file.write_text(project.replace("  ensemble: 1", "  ensemble: 1\n  leak_auc: 0.97"))
    with load(folder) as loaded:
        again = train(loaded, principal=loaded.principal())
        assert again.verdict.passed
        assert (again.model.version, again.promoted, again.same_as) == ("2", False, "kept/1")
        registry = loaded.registry()
        assert [registry.resolve(f"kept@{alias}").version for alias in ("champion", "candidate")] == ["1", "1"]
        # Served as the champion, it is not released against itself: neither by its number nor as its copy.
        change_desired_state(loaded.state, "kept", lambda book: msgspec.structs.replace(book, champion="1"))
        for uri, says in (("", "version 1 of kept is the champion"), ("kept/2", "version 2 of kept is the same model")):
            with pytest.raises(RefusedError, match=says) as caught:
                start_release(loaded, uri, principal=loaded.principal())
            assert "cumulant train" in caught.value.hint
        planned = plan_release(loaded, principal=loaded.principal(), requests="20/s")
        assert "version 1 of kept is the champion" in planned.warnings[-1]
        (loaded.state / "stack" / "desired_state.json").unlink()
    assert "version 2 is the same model as the champion, version 1, which stays" in again.notes
    file.write_text(project.replace("key: visit}", "key: visit, rules: {x: {min: -100}}}"))
    with load(folder) as loaded:
        other = train(loaded, principal=loaded.principal())
    assert (other.model.version, other.promoted, other.same_as) == ("3", True, None)
    assert any("in place of version 1; `cumulant models alias kept/1 champion`" in note for note in other.notes)
