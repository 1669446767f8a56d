"""`cumulant demo`: real processes decide what becomes of one good candidate and three broken ones."""

from __future__ import annotations

import json
import os
from importlib.resources import files

import jsonschema
import pytest
from e2e_support import opened, start

from cumulant.runtime.release import verbs
from cumulant.runtime.stack.status import read_status

pytestmark = pytest.mark.slow


def demo(folder):
    process = start(folder, "demo", "--dir", str(folder))
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0, out[-2000:] + err[-2000:]
    return json.loads(out)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The folder, and the documents of a first and a second demo in it."""
    folder = tmp_path_factory.mktemp("demo") / "flights"
    return folder, demo(folder), demo(folder)


def of(document, candidate):
    (found,) = [one for one in document["release"] if one["candidate"] == candidate]
    return found


def test_the_document_is_as_its_schema_says(told):
    schema = json.loads(files("cumulant.cli").joinpath("demo.schema.json").read_text())
    jsonschema.validate(told[1], schema)
    assert [one["candidate"] for one in told[1]["release"]] == ["v2", "slow", "failing", "leaked"]


def test_the_next_version_promotes_itself(told):
    found = of(told[1], "v2")
    assert found["verdict"] == "promoted", found["reason"]
    assert [one["name"] for one in found["stages"]] == ["shadow", "canary 10%", "canary 50%"]
    assert found["failed_requests"] == 0
    assert all(one["samples"] == one["champion_samples"] + one["candidate_samples"] > 0 for one in found["stages"])


@pytest.mark.parametrize(
    ("candidate", "why"),
    [("slow", "latency became worse"), ("failing", "errors became worse"), ("leaked", "quality became worse")],
)
def test_a_broken_one_comes_back_for_what_is_wrong_with_it(told, candidate, why):
    found = of(told[1], candidate)
    assert found["verdict"] == "rolled_back"
    assert why in found["reason"]
    assert set(found["failed_by"]) <= {"candidate"}
    assert (found["failed_requests"] > 0) == (candidate == "failing")


def test_the_journal_tells_the_same_as_the_document(told):
    folder, document, _ = told
    with opened(folder) as project:
        kept = {one.id: one for one in verbs.history(project, principal=project.principal())}
        champion = project.registry().resolve(f"{project.name}@champion").version
    for one in document["release"]:
        assert (kept[one["id"]].status, kept[one["id"]].reason) == (one["verdict"], one["reason"])
    assert champion == of(document, "v2")["version"]


def test_run_again_it_finds_what_was_done(told):
    _, first, second = told
    assert second["release"] == first["release"]
    assert "search" in second["reused"]
    assert second["seconds"] < first["seconds"] / 2


def test_nothing_is_left_running(told):
    status = read_status(told[0] / ".cumulant")
    assert status is None or not any(one.process for one in status.children)
    with pytest.raises(ProcessLookupError):
        os.kill(told[1]["serve"]["pid"], 0)
