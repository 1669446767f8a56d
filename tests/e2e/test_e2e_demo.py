"""`cumulant demo`: what becomes of a good candidate and three broken ones, and what the watch finds over the year."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import jsonschema
import polars as pl
import pytest
from e2e_stack import until
from e2e_support import opened, run, start

from cumulant.flows.release import release_queries
from cumulant.flows.stack.status import read_status
from cumulant.serving.prediction_log.storage.scanning import batches
from cumulant.testing.log import folder_log

pytestmark = pytest.mark.slow


def demo(folder):
    process = start(folder, "demo", "--dir", str(folder))
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0, out[-2000:] + err[-2000:]
    return json.loads(out)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The folder, and the documents of a first and a second demo in it. One that was made before is named by its folder
    in CUMULANT_DEMO, with its document beside it.
    """
    if made := os.environ.get("CUMULANT_DEMO"):
        folder = Path(made)
        return folder, json.loads(folder.with_suffix(".json").read_text()), demo(folder)
    folder = tmp_path_factory.mktemp("demo") / "flights"
    return folder, demo(folder), demo(folder)


def of(document, candidate):
    """The newest release of the candidate: a sound one that came back by chance is released again."""
    return [one for one in document["release"] if one["candidate"] == candidate][-1]


def test_the_document_is_as_its_schema_says(told):
    schema = json.loads(files("cumulant.cli").joinpath("demo.schema.json").read_text())
    jsonschema.validate(told[1], schema)
    candidates = list(dict.fromkeys(one["candidate"] for one in told[1]["release"]))
    assert candidates == ["v2", "slow", "failing", "leaked", "retrained"]


def test_the_next_version_promotes_itself(told):
    found = of(told[1], "v2")
    assert found["verdict"] == "promoted", found["reason"]
    assert [one["name"] for one in found["stages"]] == ["shadow", "canary 10%", "canary 50%"]
    assert found["failed_requests"] == 0
    assert all(one["samples"] == one["champion_samples"] + one["candidate_samples"] > 0 for one in found["stages"])


@pytest.mark.parametrize(
    ("candidate", "why"),
    [("slow", "latency became worse"), ("failing", "errors became worse"), ("leaked", "decisions differ in")],
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
        kept = {one.id: one for one in release_queries.release_history(project, principal=project.principal())}
        champion = project.registry().resolve(f"{project.name}@champion").version
    for one in document["release"]:
        assert (kept[one["id"]].status, kept[one["id"]].reason) == (one["verdict"], one["reason"])
    assert champion == of(document, "retrained")["version"]


def found(document, feature, kind):
    return [one for one in document["monitoring"]["findings"] if (one["feature"], one["kind"]) == (feature, kind)]


def fired(document, rule):
    return [one for one in document["monitoring"]["alerts"] if one["rule"] == rule and one["fired"]]


def test_harm_in_summer_is_named_estimated_and_measured_and_its_cure_releases_itself(told):
    _, document, _ = told
    newest = found(document, "loss", "concept")[-1]
    assert newest["at"] < "2013-08"
    assert newest["since"] < newest["at"]
    assert newest["retrained"]
    assert newest["loss_estimated"] is not None
    # Scores know nothing of a changed truth: what was measured is worse than what they say of themselves.
    assert newest["loss_measured"] > newest["loss_estimated"] > 0
    assert fired(document, "loss")
    cure = of(document, "retrained")
    assert cure["verdict"] == "promoted", cure["reason"]
    assert document["monitoring"]["trained"] == [f"flight-late/{cure['version']}"]
    assert "candidate" not in cure["failed_by"]


def test_the_days_that_callers_left_have_their_labels(told):
    folder, document, _ = told
    with opened(folder) as project:
        watch = project.journal().get("watch", f"{project.name}/{of(document, 'v2')['version']}")
    days = [one for one in watch.value["windows"] if one["rows"] >= 200]
    assert len(days) > 60
    # Flights that were cancelled have no label: of a day of storms they may be a fifth.
    assert len([one["start"] for one in days if one["labelled"] < 0.8 * one["rows"]]) <= 2


def test_every_version_answered_as_it_does_offline(told, tmp_path):
    """The champion too, which was served again after summer's data had come: servers know what training would."""
    folder, document, _ = told
    released = of(document, "v2")["version"], of(document, "retrained")["version"]
    read = ["event_time", "version", "arm", "shadow", "request", "outputs"]
    log = pl.concat(pl.from_arrow(one) for one in batches(folder_log(folder / ".cumulant" / "predictions"), read))
    logged = log.filter((pl.col("arm") != "") & ~pl.col("shadow"))
    # The second release ends in August or September, by how soon its evidence suffices.
    for version, months in ((released[0], [6]), (released[0], [8]), (released[1], [8, 9, 10])):
        in_months = pl.col("event_time").dt.month().is_in(months)
        answered = logged.filter((pl.col("version") == version) & in_months)
        assert len(answered) >= 30, (version, months)
        answered = answered.sample(min(200, len(answered)), seed=1)
        rows, answers = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
        rows.write_text("\n".join(answered["request"]))
        run(folder, "predict", str(rows), "--model", f"flight-late/{version}", "--out", str(answers))
        offline = pl.read_ndjson(answers)["probability"].to_list()
        online = answered["outputs"].str.json_path_match("$.probability").cast(pl.Float64).to_list()
        assert online == pytest.approx(offline, abs=1e-12), (version, months)


def test_a_feed_that_went_null_is_told_and_trains_nothing(told):
    folder, document, _ = told
    (fault,) = found(document, "sources", "data_fault")
    assert not fault["retrained"]
    assert "temp:nulls" in fault["says"]
    (alert,) = fired(document, "feed")
    assert alert["status"] == "resolved"
    assert alert["kind"] == "data_fault"
    # Harm was shown at that look already, and waited for data to learn from.
    assert not any(one["retrained"] for one in document["monitoring"]["findings"] if one["at"] == fault["at"])
    with opened(folder) as project:
        asked = [event for event in project.journal().events() if event.kind == "monitoring.retraining_requested"]
    assert len(asked) == 1


def test_the_shift_of_december_is_told_and_trains_nothing(told):
    _, document, _ = told
    (shift,) = found(document, "label", "prior")
    assert shift["active"]
    assert shift["at"] > shift["since"] > "2013-12"
    assert shift["version"] == of(document, "retrained")["version"]
    assert not shift["retrained"]
    (alert,) = fired(document, "outcome")
    assert (alert["kind"], alert["status"]) == ("prior", "firing")


def test_what_people_said_is_learned_from(told):
    review = told[1]["review"]
    assert review["queued"] == review["answered"] == 5
    assert 0 < review["used_for_training"] <= 5


def test_run_again_it_finds_what_was_done(told):
    _, first, second = told
    for part in ("release", "monitoring", "review"):
        assert second[part] == first[part]
    assert ("search" in first["reused"], "search" in second["reused"]) == (False, True)


@pytest.mark.parametrize("late", [True, False])
def test_ctrl_c_ends_the_server_and_the_console_that_were_kept(told, late):
    """With the console up, exit code 0; while the year is read, as an interrupted command."""
    line = [sys.executable, "-m", "cumulant.cli", "demo", "--keep", "--console", "127.0.0.1:0", "--dir", str(told[0])]
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        if late:
            assert any("sign in once" in text for text in process.stdout)
        else:
            until(lambda: servers_of(told[0]), seconds=300)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the command
        process.communicate(timeout=300)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == (0 if late else 130)
    assert servers_of(told[0]) == []


def servers_of(folder):
    """The prediction servers that run for the folder, also ones that no status names."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = path.read_bytes()
            if b"cumulant.serving" in line and str(folder).encode() in line:
                found.append(line)
    return found


def test_nothing_is_left_running(told):
    status = read_status(told[0] / ".cumulant")
    assert status is None or not any(one.process for one in status.children)
    line = Path(f"/proc/{told[1]['serve']['pid']}/cmdline")
    # By now the number may be another process's.
    assert not line.exists() or str(told[0]).encode() not in line.read_bytes()
