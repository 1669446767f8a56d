"""The past of a release without times: rows that either version learned from by its own split are left out."""

from __future__ import annotations

import pytest
from test_runtime_final_fit import make, visits

from cumulant.flows.registry.model_record import find_record
from cumulant.flows.release.start.paired_evaluation import evaluate_pair
from cumulant.flows.training.train import train
from cumulant.project.file.loading import load
from cumulant.project.release_section import paired_policy
from cumulant.release.spec import PairedSpec


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["train", "all"])
def test_rows_that_one_version_learned_from_are_not_taken_for_unseen(tmp_path, fit):
    """Version 1 learned from 90% of the rows and version 2 from 60%: the test of today is of 40%, and 1 knows most."""
    folder = make(tmp_path / "shop", visits(2800).drop("at"), fit=fit, timed=False)
    file = folder / "cumulant.yaml"
    text = file.read_text()
    for share in ("10%", "40%"):
        file.write_text(text.replace("test: 20%", f"test: {share}"))
        with load(folder) as project:
            train(project, principal=project.principal(), promote=share == "10%")
    with load(folder) as project:
        first, second = (project.registry().resolve(f"kept/{number}") for number in (1, 2))
        own = find_record(project, first).fitted.split.test
        assert 200 < own < 400
        for one, other in ((first, second), (second, first)):
            found, notes = evaluate_pair(
                project, one.version, other, policy=paired_policy(PairedSpec()), principal=project.principal()
            )
            assert found is not None, notes
            if fit == "train":
                assert (found.rows, found.seen_by) == (own, ())
            else:  # compared as fitted without these rows, unless the served candidate is not shown to be as good
                assert found.seen_by or found.rows == own
