"""A release of versions that were fitted on all rows: their tested models are compared, and the served one with its own."""

from __future__ import annotations

import e2e_shop
import msgspec
import numpy as np
import polars as pl
import pytest
from e2e_support import opened

from cumulant.flows.release.start.candidate import admit_candidate
from cumulant.flows.training.train import train
from cumulant.project.file.loading import load
from cumulant.project.release_section import release_policy
from cumulant.release.evidence.metrics import metrics
from cumulant.release.paired.paired_evaluation import evidence, prior_evidence
from cumulant.release.spec import MetricSpec, ReleaseSpec

pytestmark = pytest.mark.slow

PROJECT = (
    e2e_shop.PROJECT.replace("  trials: 3\n", "  trials: 1\n")
    .replace("  ensemble: 2\n", "")
    .replace("  target: returned\n", "  target: returned\n  final_fit: all\n")
)
_BAR = np.log(20)


@pytest.fixture(scope="module", params=["times", "no times"])
def shop(request, tmp_path_factory):
    """Version 1 serves; 2 is a sound retraining, 3 learned from shuffled labels. All know all rows."""
    text = PROJECT
    if request.param == "no times":
        text = text.replace("    event_time: ordered\n    known_time: {3d: returned}\n", "")
    folder = e2e_shop.make(tmp_path_factory.mktemp("paired") / "shop", rows=12_000, project=text)
    if request.param == "no times":
        features = folder / "features.py"
        features.write_text(
            'from cumulant.features import source\n\nrow = source("orders").columns("kind", "amount", "express")\n'
        )
    shuffled = folder / "shuffled"
    shuffled.mkdir()
    for file in (folder / "data" / "orders").iterdir():
        pl.read_parquet(file).with_columns(pl.col("returned").shuffle(seed=1)).write_parquet(shuffled / file.name)
    with opened(folder) as project:
        train(project, principal=project.principal())
        train(project, principal=project.principal(), trials=2, promote=False)
    with load(folder, overrides={"data.orders.path": "shuffled/*.parquet"}) as project:
        train(project, principal=project.principal(), promote=False)
    return folder


def compared(folder, servable_of):
    """What the release of version 2 would go by, if it served the servable of another version."""
    notes = []
    with opened(folder) as project:
        version, other = (project.registry().resolve(f"returns/{number}") for number in (2, servable_of))
        tags = {**version.tags, "cumulant.servable": other.tags["cumulant.servable"]}
        found = admit_candidate(
            project,
            "1",
            msgspec.structs.replace(version, tags=tags),
            release_policy(
                ReleaseSpec(metrics={"disagreement": MetricSpec(margin="90%"), "quality": MetricSpec(margin=0.5)})
            )
            if servable_of == 3
            else release_policy(ReleaseSpec()),
            who=project.principal(),
            notes=notes,
            progress=lambda *_: None,
        )
    return *found, notes


def test_a_sound_retraining_is_shown_to_be_no_worse_by_what_was_tested(shop):
    spec, found, notes = compared(shop, 2)
    margin = metrics(spec)["quality"].margin
    assert (found.failed, found.seen_by) == (0, ())
    assert found.rows > 1500
    assert evidence(found, margin=margin).log_not_worse() > _BAR
    assert prior_evidence(found, margin=margin, bar=_BAR) > 0
    assert any("as fitted without these rows" in note for note in notes)


def test_a_served_model_that_answers_worse_than_its_tested_one_has_no_evidence_for_it(shop):
    _, found, notes = compared(shop, 3)
    assert found.seen_by == ("champion", "candidate")
    assert prior_evidence(found, margin=0.5, bar=_BAR) == 0
    assert any("may have learned from the labelled rows" in note for note in notes)
