"""Versions that the gate refused are served and released only where somebody names them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cumulant.core.errors import NotFoundError, RefusedError
from cumulant.flows.deployment.versions import champion_uri
from cumulant.flows.release.start.candidate import find_candidate
from cumulant.ports.registry import ModelVersion
from cumulant.project.file.loading import load


def _project(*verdicts: str, champion: str = "", candidate: str | None = "newest") -> Any:
    """A project with versions 1, 2, ... of these verdicts, and who has the aliases."""
    candidate = str(len(verdicts)) if candidate == "newest" else candidate
    known = [
        ModelVersion(
            name="late",
            version=str(number),
            uri="",
            run_id=None,
            created=datetime(2026, 1, 1, tzinfo=UTC),
            tags={"cumulant.verdict": verdict},
            aliases=_aliases(str(number) == champion, candidate=str(number) == candidate),
        )
        for number, verdict in enumerate(verdicts, 1)
    ][::-1]
    places = {f"late/{one.version}": one for one in known}
    places |= {"late": known[0]} | ({"late@candidate": places[f"late/{candidate}"]} if candidate else {})
    places |= {"late@champion": places[f"late/{champion}"]} if champion else {}

    def resolve(uri: str) -> ModelVersion:
        if uri not in places:
            raise NotFoundError("none", subject=uri)
        return places[uri]

    registry = SimpleNamespace(resolve=resolve, versions=lambda name: known)
    return SimpleNamespace(name="late", registry=lambda: registry)


def _aliases(champion: bool, *, candidate: bool) -> tuple[str, ...]:
    return (*(("candidate",) if candidate else ()), *(("champion",) if champion else ()))


def test_the_first_to_serve_is_the_newest_that_passed() -> None:
    assert champion_uri(_project("passed", "passed", "refused")) == "late/2"
    assert champion_uri(_project("refused", "passed", "refused", champion="1")) == "late@champion"
    with pytest.raises(NotFoundError, match="refused every version"):
        champion_uri(_project("refused", "refused"))


def test_a_refused_candidate_must_be_named() -> None:
    with pytest.raises(RefusedError, match="the gate refused version 2"):
        find_candidate(_project("passed", "refused"), "")
    with pytest.raises(RefusedError, match="the gate refused version 2 of late, the newest"):  # it has no alias
        find_candidate(_project("passed", "refused", champion="1", candidate=None), "")
    with pytest.raises(RefusedError, match="the gate refused version 2 of late, the newest"):  # after a first training
        find_candidate(_project("passed", "refused", champion="1", candidate="1"), "")
    assert find_candidate(_project("passed", "passed", champion="1", candidate="1"), "").version == "1"
    assert find_candidate(_project("passed", "refused"), "late/2").version == "2"
    assert find_candidate(_project("refused", "passed"), "").version == "2"


def test_without_a_candidate_the_hint_names_a_version_that_exists_or_none() -> None:
    train = "`cumulant train` gives it to a version that passes the gate"
    for versions, champion, hint in (
        (2, "", f"{train}; or name one: late/2"),
        (2, "2", f"{train}; or name one: late/1"),
        (1, "1", train),
    ):
        with pytest.raises(NotFoundError, match="alias candidate") as caught:
            find_candidate(_project(*["passed"] * versions, champion=champion, candidate=None), "")
        assert caught.value.hint == hint


def test_without_any_version_the_hint_names_none(tmp_path: Path) -> None:
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: late}\n")
    with load(tmp_path) as project, pytest.raises(NotFoundError, match="alias candidate") as caught:
        find_candidate(project, "")
    assert caught.value.hint == "`cumulant train` gives it to a version that passes the gate"
