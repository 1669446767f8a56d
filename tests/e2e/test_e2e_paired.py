"""Both versions of a release on labelled rows of the past: what is refused before the first request, and what is not."""

from __future__ import annotations

from datetime import timedelta

import e2e_shop
import msgspec
import numpy as np
import polars as pl
import pytest
from e2e_shop import START
from e2e_support import opened

from cumulant.core.errors import RefusedError
from cumulant.flows.release.start.candidate import admit_candidate
from cumulant.flows.release.start.paired_evaluation import evaluate_pair
from cumulant.flows.training.train import train
from cumulant.project.file.loading import load
from cumulant.project.release_section import paired_policy, release_policy
from cumulant.release.evidence.metrics import metrics
from cumulant.release.paired.paired_evaluation import evidence, log_harm, prior_evidence
from cumulant.release.spec import MetricSpec, PairedSpec, ReleaseSpec

pytestmark = pytest.mark.slow

PROJECT = e2e_shop.PROJECT.replace("  trials: 3\n", "  trials: 1\n").replace("  ensemble: 2\n", "")
_BAR = np.log(20)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Version 1 serves; 2 is a sound retraining, 3 learned from shuffled labels."""
    folder = e2e_shop.make(tmp_path_factory.mktemp("paired") / "shop", rows=12_000, project=PROJECT)
    shuffled, positives = folder / "shuffled", folder / "positives"
    for made in (shuffled, positives):
        made.mkdir()
    for file in (folder / "data" / "orders").iterdir():
        table = pl.read_parquet(file)
        table.with_columns(pl.col("returned").shuffle(seed=1)).write_parquet(shuffled / file.name)
        old = pl.col("ordered") < START + timedelta(days=20)
        table.filter(pl.col("returned") | old).write_parquet(positives / file.name)
    with opened(folder) as project:
        train(project, principal=project.principal())
        train(project, principal=project.principal(), trials=2, promote=False)
    with load(folder, overrides={"data.orders.path": "shuffled/*.parquet"}) as project:
        train(project, principal=project.principal(), promote=False)
    return folder


def compared(folder, number, policy=None):
    """The policy that a release of the version would go by, its evaluation, and what is noted."""
    notes = []
    with opened(folder) as project:
        version = project.registry().resolve(f"returns/{number}")
        found = admit_candidate(
            project,
            "1",
            version,
            policy or release_policy(ReleaseSpec()),
            who=project.principal(),
            notes=notes,
            progress=lambda *_: None,
        )
    return *found, notes


def test_a_sound_retraining_is_shown_to_be_no_worse_and_gives_its_margins(shop):
    spec, found, notes = compared(shop, 2)
    assert found is not None
    assert (found.failed, found.seen_by) == (0, ())
    assert found.rows > 1500
    named = metrics(spec)
    assert evidence(found, margin=named["quality"].margin).log_not_worse() > _BAR
    assert found.disagreement < named["disagreement"].margin < 0.2
    assert 0 < named["prediction"].margin < 0.1
    assert "labelled rows of the past" in notes[-1]


def test_a_model_of_shuffled_labels_does_not_begin(shop):
    with pytest.raises(RefusedError, match="decides otherwise"):
        compared(shop, 3)


def test_where_a_change_of_decisions_is_meant_worse_answers_are_refused_all_the_same(shop):
    declared = release_policy(ReleaseSpec(metrics={"disagreement": MetricSpec(margin="90%")}))
    with pytest.raises(RefusedError, match="worse by more than the margin"):
        compared(shop, 3, declared)


def test_what_is_declared_to_be_accepted_begins_and_is_reported(shop):
    accepted = release_policy(
        ReleaseSpec(metrics={"disagreement": MetricSpec(margin="90%"), "quality": MetricSpec(margin=0.5)})
    )
    spec, found, _ = compared(shop, 3, accepted)
    assert found is not None
    assert log_harm(found, margin=0.5) > _BAR
    assert metrics(spec)["disagreement"].margin == 0.9


def test_a_version_of_which_nothing_is_known_is_compared_by_its_servable(shop):
    with opened(shop) as project:
        version = project.registry().resolve("returns/2")
        foreign = msgspec.structs.replace(version, version="9")  # no record of how it was made
        notes = []
        _, found = admit_candidate(
            project,
            "1",
            foreign,
            release_policy(ReleaseSpec()),
            who=project.principal(),
            notes=notes,
            progress=lambda *_: None,
        )
    assert found is not None
    assert found.seen_by == ("candidate",)
    assert any("the candidate may have learned from the labelled rows" in note for note in notes)
    assert prior_evidence(found, margin=0.005, bar=_BAR) == 0.0


def test_where_nothing_can_be_compared_the_reason_is_noted_and_disagreement_is_bounded(shop):
    with load(shop, overrides={"training.target": "amount > 50"}) as project:
        version = project.registry().resolve("returns/2")
        notes = []
        spec, found = admit_candidate(
            project,
            "1",
            version,
            release_policy(ReleaseSpec()),
            who=project.principal(),
            notes=notes,
            progress=lambda *_: None,
        )
    assert found is None
    assert "were not compared on labelled rows of the past" in notes[0]
    assert metrics(spec)["disagreement"].margin == 0.2


def test_labels_of_one_class_are_no_comparison(shop):
    with load(shop, overrides={"data.orders.path": "positives/*.parquet"}) as project:
        version = project.registry().resolve("returns/2")
        _, notes = evaluate_pair(
            project, "1", version, policy=paired_policy(PairedSpec()), principal=project.principal()
        )
    assert "all but fewer than 5 of the labels are true" in notes[0]
