"""`cumulant release`: exit codes that automation goes by."""

import pytest

from cumulant.flows.release.start import start
from cumulant.flows.release.start.start import ReleaseStart


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--wait",), 1)])
def test_a_candidate_that_waits_for_another_release_was_not_promoted(project, cumulant, monkeypatch, words, code):
    monkeypatch.setattr(start, "start_release", lambda *_, **__: ReleaseStart(waits_for="r1"))
    ended = cumulant("release", "start", "--project", str(project), "--json", *words)
    assert (ended.code, ended.document["waits_for"]) == (code, "r1")


@pytest.mark.parametrize("verb", ["abort", "promote"])
def test_a_release_is_ended_by_hand_for_a_reason_only(project, cumulant, verb):
    refused = cumulant("release", verb, "--reason", " ", "--project", str(project))
    assert (refused.code, "the reason is empty" in refused.err) == (2, True)
