"""Labels for a release: pairs of its own versions since it began, joined not at every look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from cumulant.core.errors import LeaseHeldError
from cumulant.core.traffic import Arm
from cumulant.flows.release.controller import label_evidence
from cumulant.flows.release.controller.label_evidence import LabelEvidence
from cumulant.flows.stack.desired_state import ServedVersion, change_desired_state
from cumulant.outcomes.join.mirrored_pairs import GradedPair
from cumulant.project.file.spec import EnvironmentSpec

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


class Release(msgspec.Struct):
    model: str = "late"
    champion: Arm = Arm(name="champion", version="1", endpoints=("http://a",))
    candidate: Arm = Arm(name="candidate", version="2", endpoints=("http://b",))
    begun: datetime = BEGUN


class Project:
    name = "late"
    file = SimpleNamespace(environment=EnvironmentSpec())

    def __init__(self, state: Path = Path("/nowhere")) -> None:
        self.state = state

    def principal(self) -> str:
        return "user:test"


def pair(candidate: str, champion: str = "1", *, later: int = 1) -> GradedPair:
    return GradedPair(
        id="a",
        row=0,
        time=BEGUN + timedelta(seconds=later),
        model="late",
        champion_version=champion,
        candidate_version=candidate,
        champion=0.1,
        candidate=0.3,
        weight=1.0,
        label=True,
        label_known_time=BEGUN,
    )


class Outcomes:
    def __init__(self, pairs: list[GradedPair]) -> None:
        self.pairs = pairs

    end_of_graded = "at 5"

    def graded(self, cursor: str, *, limit: int) -> tuple[list[GradedPair], str]:
        del limit
        return self.pairs[int(cursor[3:] or 0) :], f"at {len(self.pairs)}"


@pytest.fixture
def joins(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    pairs = [pair("2"), pair("3"), pair("2", champion="0"), pair("2", later=-1), pair("2", later=5)]
    monkeypatch.setattr(label_evidence, "schema_of", lambda *_: None)
    monkeypatch.setattr(label_evidence, "outcomes_of", lambda *_: Outcomes(pairs))
    monkeypatch.setattr(label_evidence, "join_labels", lambda *_, **__: found.append(1.0))
    return found


def told(now: list[float], project: Project | None = None) -> Any:
    return LabelEvidence(project or Project(), steady=lambda: now[0])  # type: ignore[arg-type]


def test_only_pairs_of_the_release_count_each_once(joins: list[float]) -> None:
    labels = told([0.0])
    found, cursor = labels.read_losses(Release(), "")
    assert [(one.champion, one.candidate) for one in found] == [(0.1, 0.3), (0.1, 0.3)]
    assert labels.read_losses(Release(), cursor) == ([], cursor)
    assert len(joins) == 1


def test_a_cursor_of_an_earlier_version_is_the_end_of_what_is_there(joins: list[float]) -> None:
    assert told([0.0]).read_losses(Release(), "3") == ([], "at 5")
    assert len(joins) == 1


def test_a_join_comes_again_after_a_pause(joins: list[float]) -> None:
    now = [0.0]
    labels = told(now)
    for now[0] in (0.0, 1.0, 3.0, 5.0, 6.0, 10.0):
        labels.read_losses(Release(), "")
    assert len(joins) == 3


def test_somebody_else_who_joins_is_not_waited_for(joins: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*_: object, **__: object) -> None:
        raise LeaseHeldError("another process is at it")

    monkeypatch.setattr(label_evidence, "join_labels", held)
    assert len(told([0.0]).read_losses(Release(), "")[0]) == 2
    assert joins == []


def test_servers_of_others_have_no_pairs(joins: list[float]) -> None:
    outside = Release(candidate=Arm(name="candidate", version="http://b", endpoints=("http://b",)))
    assert told([0.0]).read_losses(outside, "7") == ((), "7")
    assert told([0.0]).read_losses(Release(model="other"), "") == ((), "")
    assert joins == []


def test_what_labels_are_is_asked_of_the_champion_as_it_is_served(
    tmp_path: Path, joins: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path | None] = []
    monkeypatch.setattr(label_evidence, "schema_of", lambda _, described: asked.append(described))
    served = ServedVersion(version="1", command=("python", "-m", "cumulant.serving", str(tmp_path / "model")), port=1)
    change_desired_state(tmp_path, "late", lambda book: msgspec.structs.replace(book, versions={"1": served}))
    labels = told([0.0], Project(tmp_path))
    labels.read_losses(Release(), "")  # its folder is gone: the registry has it
    (tmp_path / "model").mkdir()
    labels.read_losses(Release(), "")  # and so it is where its files are gone
    monkeypatch.setattr("cumulant.servable.folder.load_description", lambda folder: folder)
    labels.read_losses(Release(), "")
    assert asked == [None, None, tmp_path / "model"]
    assert joins
