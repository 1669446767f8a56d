"""Sections of the project file become policies: numbers with units, the same defaults, refused where they mean nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cumulant.core.errors import ProjectFileError
from cumulant.monitoring.policy import DriftPolicy, HistoryPolicy, PerformancePolicy, RetrainPolicy
from cumulant.monitoring.spec import MonitoringSpec
from cumulant.project.file.loading import load
from cumulant.project.monitoring_section import monitoring_policy

HEAD = "version: 1\nmodel: {name: late}\n"


def project(folder: Path, text: str):
    (folder / "cumulant.yaml").write_text(HEAD + text, encoding="utf-8")
    return load(folder)


def test_a_policy_without_a_section_is_that_of_an_empty_one() -> None:
    found = monitoring_policy(MonitoringSpec())
    assert (found.drift, found.performance, found.history) == (DriftPolicy(), PerformancePolicy(), HistoryPolicy())
    assert found.retrain == RetrainPolicy(on_harm=False)


def test_texts_are_numbers_from_the_project_on(tmp_path: Path) -> None:
    found = project(
        tmp_path,
        "release: {alpha: 2%, look: 500ms, keep_warm: 1d12h, ceilings: {errors: 0.3}}\n"
        "monitoring: {drift: {window: 12h, faults: 2%}, review: {budget: 5/week, second: 0.25}}\n",
    )
    release, monitoring = found.policies.release, found.policies.monitoring
    assert (release.alpha, release.look, release.ceilings.errors) == (0.02, 0.5, 0.3)
    assert release.keep_warm == timedelta(days=1.5)
    assert (monitoring.drift.window, monitoring.drift.faults) == (timedelta(hours=12), 0.02)
    assert monitoring.review is not None
    assert (str(monitoring.review.budget), monitoring.review.second) == ("5/week", 0.25)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("monitoring:\n  drift: {window: 0d}\n", 4, "monitoring.drift.window may not be 0; leave it out, or write 1d"),
        ("monitoring: {performance: {window: 0s}}\n", 3, "monitoring.performance.window may not be 0"),
        ("monitoring:\n  review:\n    budget: 0.5/week\n", 5, "0.5/week is less than one case; take a longer period"),
    ],
)
def test_what_a_flow_would_have_met_is_refused_with_its_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    with pytest.raises(ProjectFileError) as raised:
        project(tmp_path, text)
    assert f"cumulant.yaml:{line}: " in raised.value.message
    assert says in raised.value.message
