"""Commands on a project with a registered model, by the same door as the console script."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import jsonschema
import msgspec
import pytest

from cumulant.cli import documents
from cumulant.cli.app import load
from cumulant.cli.documents import demo_fraud_schema, demo_schema
from cumulant.flows.ledger.processes import is_gone, process_of
from cumulant.flows.reports.content import ReportData
from cumulant.flows.stack.identity import home_of
from cumulant.flows.stack.status import Status, remove_status, write_status


def test_train_again_reuses_every_step_and_prints_one_document(trained: Path, cumulant: Any) -> None:
    ended = cumulant("train", "--quick", "--project", str(trained), "--json")
    assert (ended.code, ended.err) == (0, "")
    document = msgspec.convert(ended.document, documents.TrainDocument)
    assert set(document.reused) >= {"search", "evaluate", "package", "register"}
    assert (
        document.data.rows_in == document.data.rows_passed + document.data.rows_quarantined + document.data.rows_dropped
    )
    figure = document.training.metrics["roc_auc"]
    assert figure.low is not None
    assert figure.low <= figure.value
    assert document.gate.verdict in {"better", "worse", "not_worse", "cannot_tell"}
    assert document.model.uri == "models:/shop/1"
    assert [step.name for step in document.steps if step.reused] == list(document.reused)
    assert not any(step.seconds for step in document.steps if step.reused)


def test_the_time_of_each_step_is_shown(trained: Path, cumulant: Any, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "shop", ignore=shutil.ignore_patterns(".cumulant"))
    file = tmp_path / "shop" / "cumulant.yaml"
    file.write_text(file.read_text().replace("../visits.csv", str(trained.parent / "visits.csv")))
    ended = cumulant("train", "--quick", "--time", "1h", "--project", str(file.parent))
    assert ended.code in (0, 1), ended.err
    (shown,) = [line for line in ended.out.splitlines() if line.startswith("steps: ")]
    names = [part.rsplit(" ", 2)[0] for part in shown.removeprefix("steps: ").partition(" (")[0].split(", ")]
    assert names == ["data rows", "features", "search", "evaluate", "package", "register", "between them"]
    assert shown.endswith("(--time 1h bounds search and final fits)")

    run = cumulant("runs", "show", "--project", str(file.parent), "--json").document
    spent = [step["seconds"] for step in run["steps"]]
    assert all(seconds > 0 for seconds in spent)
    assert sum(spent) < run["seconds"]
    assert "search" in cumulant("runs", "show", "--project", str(file.parent)).out
    for suffix in (".html", ".md", ".json"):
        page = tmp_path / f"page{suffix}"
        assert cumulant("report", "--out", str(page), "--project", str(file.parent)).code == 0
    data = msgspec.json.decode((tmp_path / "page.json").read_bytes(), type=ReportData)
    assert [step.seconds for step in data.steps] == spent
    for suffix in (".html", ".md"):
        assert f"The steps of the run took {names[0]}" in (tmp_path / f"page{suffix}").read_text()


def test_train_for_people(trained: Path, cumulant: Any) -> None:
    ended = cumulant("train", "--quick", "--project", str(trained))
    assert ended.code == 0
    for part in ("ROC AUC", "95% interval", "naive", "gate", "models:/shop/1", "steps reused", "cumulant report"):
        assert part in ended.out
    assert "search\n" in ended.err


def test_a_rule_that_no_request_is_checked_for_is_named(trained: Path, cumulant: Any, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "shop", ignore=shutil.ignore_patterns(".cumulant"))
    file = tmp_path / "shop" / "cumulant.yaml"
    text = file.read_text().replace("../visits.csv", str(trained.parent / "visits.csv"))
    text = text.replace("    rules:\n", '    rules:\n      channel: {pattern: "^[[:lower:]]+$"}\n')
    file.write_text(text + "serving: {invalid: refuse}\n")
    named = "requests are not checked for the rule channel:pattern"
    assert named in cumulant("plan", "--project", str(file.parent)).out
    ended = cumulant("train", "--quick", "--project", str(file.parent), "--json")
    assert [note for note in ended.document["training"]["notes"] if note.startswith(named)]


def test_a_gate_that_says_no_ends_with_1(trained: Path, cumulant: Any, tmp_path: Path) -> None:
    copy = tmp_path / "shop"
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns(".cumulant"))
    text = (copy / "cumulant.yaml").read_text().replace("../visits.csv", str(trained.parent / "visits.csv"))
    (copy / "cumulant.yaml").write_text(text + "evaluation: {gate: {accuracy: {min: 0.999}}}\n")
    ended = cumulant("train", "--quick", "--project", str(copy))
    assert ended.code == 1, ended.err
    assert "Refused" in ended.out
    assert "✗ Accuracy: at least 0.999" in ended.out
    # The run got to its end, and everything that tells of it says what the gate said.
    assert "done (gate refused)" in cumulant("runs", "list", "--project", str(copy)).out
    assert "done (gate refused)" in cumulant("runs", "show", "--project", str(copy)).out
    (run,) = cumulant("runs", "list", "--project", str(copy), "--json").document
    assert (run["status"], run["verdict"]) == ("done", "refused")
    events = cumulant("events", "list", "--project", str(copy), "--json").document
    assert (events[-1]["kind"], events[-1]["data"]["verdict"]) == ("run.finished", "refused")
    assert "model.aliased" not in [event["kind"] for event in events], "a refused version gets no alias"
    before = cumulant("runs", "list", "--project", str(trained), "--json").document[-1]
    assert (before["status"], before["verdict"]) == ("done", "passed")


@pytest.mark.parametrize(
    "option", [("--as-of", "tomorrow"), ("--time", "long"), ("--time", "0s"), ("--time", "-5s"), ("--trials", "0")]
)
def test_train_refuses_what_it_cannot_read(option: tuple[str, str], trained: Path, cumulant: Any) -> None:
    before = cumulant("runs", "list", "--project", str(trained), "--json").document
    ended = cumulant("train", *option, "--project", str(trained))
    assert ended.code == 2
    assert cumulant("runs", "list", "--project", str(trained), "--json").document == before, "refused before it begins"


def test_help_of_train_says_what_its_time_bounds() -> None:
    (option,) = [one for one in load("train").params if one.name == "time"]
    assert option.help == (
        "Search and final fits take at most this long, such as 90s or 10m; reading, evaluation, packaging and"
        " registration come on top. The time of each step is shown at the end."
    )


def test_models_show_prints_the_address_of_the_running_gateway(trained: Path, cumulant: Any) -> None:
    state, now = trained / ".cumulant", datetime.now(UTC)
    (state / "stack").mkdir(exist_ok=True)
    living = Status(
        model="shop",
        environment="local",
        supervisor=process_of(os.getpid()),
        since=now,
        at=now,
        url="http://127.0.0.1:9191",
        home=home_of(state),
    )
    ended = msgspec.structs.replace(living.supervisor, born="0")
    try:
        for status, port in (
            (living, 9191),
            (msgspec.structs.replace(living, supervisor=ended), 8080),
            (msgspec.structs.replace(living, url=None), 8080),
            (msgspec.structs.replace(living, model="another"), 8080),
        ):
            write_status(state, status)
            told = cumulant("models", "show", "--project", str(trained))
            assert f"http://127.0.0.1:{port}/v1/models/shop/predict" in told.out
        (state / "stack" / "status.json").write_text("{")
        assert ":8080/v1/models/shop/predict" in cumulant("models", "show", "--project", str(trained)).out
    finally:
        remove_status(state)


def test_models_list_show_compare_tag_and_alias(trained: Path, cumulant: Any) -> None:
    project = ("--project", str(trained))
    (version,) = cumulant("models", "list", *project, "--json").document
    assert (version["name"], version["version"]) == ("shop", "1")
    shown = cumulant("models", "show", *project, "--json").document
    assert shown["curl"].startswith("curl -s http://127.0.0.1:8080/v1/models/shop/predict")
    assert {field["name"] for field in shown["request"]} >= {"channel", "pages"}
    assert shown["trainer"] in ("linear", "lightgbm")
    assert shown["trainer"] in cumulant("models", "show", "shop/1", *project).out
    text = cumulant("models", "show", "shop/1", *project).out
    assert "ROC AUC" in text
    assert "request field" in text
    assert "@example.com" not in text
    compared = cumulant("models", "compare", "shop/1", "shop@candidate", *project)
    assert compared.code == 0
    assert "shop/1" in compared.out
    assert "the figures are of the same test rows" in compared.out
    assert cumulant("models", "compare", "shop/1", *project).code == 2
    assert cumulant("models", "tag", "shop/1", "reviewed=yes", *project).code == 0
    tagged = cumulant("models", "list", *project, "--json").document[0]["tags"]
    assert tagged["reviewed"] == "yes"
    assert cumulant("models", "tag", "shop/1", "reviewed=", *project).code == 0
    assert cumulant("models", "tag", "shop/1", "reviewed", *project).code == 2
    assert cumulant("models", "alias", "shop/1", "champion", "--reason", "a test", *project).code == 0
    assert cumulant("models", "alias", "shop", "champion", "--remove", *project, "--json").document["version"] is None
    ended = cumulant("models", "show", "shop/7", *project)
    assert ended.code == 2
    assert "not-found" in ended.err


def test_reproduce_and_lineage(trained: Path, cumulant: Any) -> None:
    ended = cumulant("models", "reproduce", "shop/1", "--project", str(trained), "--json")
    assert ended.code == 0, ended.err
    assert ended.document["identical"] is True
    lineage = cumulant("lineage", "shop/1", "--project", str(trained), "--json").document
    assert lineage["sources"][0]["files"][0]["sha256"]
    text = cumulant("lineage", "--project", str(trained)).out
    assert lineage["sources"][0]["snapshot"][:12] in text


def test_evaluate(trained: Path, cumulant: Any) -> None:
    ended = cumulant("evaluate", "--project", str(trained), "--json")
    assert ended.code == 0, ended.err
    assert ended.document["metrics"]["roc_auc"]["value"] > 0.5
    assert "evaluated again" in cumulant("evaluate", "shop/1", "--project", str(trained)).out


def test_predict_offline(trained: Path, cumulant: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("channel,pages,began\nsearch,25,2026-01-29T10:00:00Z\nmail,3,2026-01-29T11:00:00Z\n")
    ended = cumulant("predict", str(rows), "--project", str(trained), "--json")
    assert ended.code == 0, ended.err
    high, low = ended.document["answers"]
    assert high["probability"] > low["probability"]
    out = tmp_path / "answers.csv"
    assert cumulant("predict", str(rows), "--out", str(out), "--project", str(trained)).code == 0
    assert len(out.read_text().splitlines()) == 3
    ended = cumulant("predict", str(rows), "--url", "http://127.0.0.1:9", "--project", str(trained))
    assert ended.code == 3
    assert "cumulant serve" in ended.err


@pytest.mark.parametrize("suffix", ["html", "md", "json"])
def test_report(suffix: str, trained: Path, cumulant: Any, tmp_path: Path) -> None:
    out = tmp_path / "deep" / f"report.{suffix}"
    ended = cumulant("report", "shop/1", "--out", str(out), "--project", str(trained), "--json")
    assert ended.code == 0, ended.err
    assert ended.document == {"file": str(out)}
    text = out.read_text()
    assert "shop version 1" in text
    assert "@example.com" not in text
    if suffix == "json":
        report = msgspec.json.decode(text, type=ReportData)
        assert report.training is not None
        assert [fold.name for fold in report.training.folds][-1] == "test"
        assert all(fold.held_to for fold in report.training.folds)
        assert {event.kind for event in report.events} >= {"run.started", "run.finished"}


def test_clean_shows_first_and_removes_on_demand(trained: Path, cumulant: Any) -> None:
    shown = cumulant("data", "clean", "--project", str(trained), "--json").document
    assert shown["removed"] is False
    assert cumulant("data", "clean", "--project", str(trained)).code == 0
    assert cumulant("data", "clean", "--yes", "--project", str(trained), "--json").document["items"] == shown["items"]
    assert cumulant("data", "clean", "--project", str(trained), "--json").document["items"] == []
    assert cumulant("models", "show", "--project", str(trained)).code == 0


def test_report_of_a_run_that_did_not_train_and_of_nothing(trained: Path, cumulant: Any, tmp_path: Path) -> None:
    cumulant("data", "validate", "--project", str(trained))
    run = cumulant("runs", "list", "--flow", "validate", "--project", str(trained), "--json").document[0]["id"]
    out = tmp_path / "report.md"
    assert cumulant("report", run, "--out", str(out), "--project", str(trained)).code == 0
    assert f"run {run}" in out.read_text()
    assert cumulant("report", "nothing", "--out", str(out), "--project", str(trained)).code == 2
    assert cumulant("report", "--out", str(tmp_path / "report.pdf"), "--project", str(trained)).code == 2


@pytest.fixture
def server(trained: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`cumulant serve --json` as a process, and the document that it printed."""
    words = [sys.executable, "-m", "cumulant.cli", "serve", "--port", "0", "--project", str(trained), "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        while not said.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, "it ended before it answered"
            said += line
        yield process, json.loads(said)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_serve_answers_until_it_is_told_to_stop(server: Any, trained: Path, cumulant: Any) -> None:
    process, document = server
    fields = cumulant("models", "show", "--project", str(trained), "--json").document["request"]
    row = {"channel": "search", "pages": 25, "began": "2026-01-29T10:00:00Z"}
    body = json.dumps({name: row[name] for name in (field["name"] for field in fields)}).encode()
    request = urllib.request.Request(
        f"{document['url']}/v1/models/shop/predict", data=body, headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        assert 0 < json.load(response)["probability"] < 1
    port = document["url"].rpartition(":")[2]
    again = cumulant("serve", "--port", port, "--project", str(trained))
    assert again.code == 3
    assert "port-in-use" in again.err
    serving = process_of(document["pid"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    deadline = time.monotonic() + 60
    while not is_gone(serving):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_schemas_of_the_demos_are_in_the_package() -> None:
    fraud = json.loads(files("cumulant.cli").joinpath("demo_fraud.schema.json").read_text())
    assert fraud == json.loads(msgspec.json.encode(demo_fraud_schema()))
    stored = json.loads(files("cumulant.cli").joinpath("demo.schema.json").read_text())
    assert stored == json.loads(msgspec.json.encode(demo_schema()))
    jsonschema.Draft202012Validator.check_schema(stored)
    needed = {"data", "features", "training", "gate", "model", "serve", "seconds"}
    (definition,) = [one for name, one in stored["$defs"].items() if name == "DemoDocument"]
    assert needed <= set(definition["required"])


@pytest.mark.parametrize("words", [("predict", "rows.csv"), ("features", "get"), ("data", "quarantine", "visits")])
def test_an_unknown_output_format_is_refused_before_the_project_is_opened(
    words: tuple[str, ...], cumulant: Any, tmp_path: Path
) -> None:
    ended = cumulant(*words, "--out", str(tmp_path / "x.xyz"), "--project", str(tmp_path / "nowhere"))
    assert ended.code == 2
    assert '"x.xyz" names no format' in ended.err


@pytest.mark.parametrize("words", [("predict", "rows.csv"), ("features", "get"), ("data", "quarantine", "visits")])
def test_an_output_in_a_missing_folder_is_refused_before_the_project_is_opened(
    words: tuple[str, ...], cumulant: Any, tmp_path: Path
) -> None:
    ended = cumulant(*words, "--out", str(tmp_path / "no" / "a.csv"), "--project", str(tmp_path / "nowhere"))
    assert ended.code == 2
    assert f"there is no folder {tmp_path / 'no'}" in ended.err.replace("\n", "")
    assert not (tmp_path / "no").exists()


def test_the_only_source_need_not_be_named(trained: Path, cumulant: Any) -> None:
    for command in ("show", "quarantine"):
        ended = cumulant("data", command, "--project", str(trained), "--json")
        assert ended.code == 0, ended.err


def test_models_show_names_each_figure_once(trained: Path, cumulant: Any) -> None:
    out = cumulant("models", "show", "--project", str(trained)).out
    assert sum(line.strip().startswith("features ") for line in out.splitlines()) == 1
    assert "feature plan" in out


def test_events_list_tells_why_an_alias_moved(trained: Path, cumulant: Any) -> None:
    project = ("--project", str(trained))
    assert cumulant("models", "alias", "shop/1", "reviewed", "--reason", "risk said yes", *project).code == 0
    ended = cumulant("events", "list", "--kind", "model.aliased", *project)
    (row,) = [line for line in ended.out.splitlines() if "alias reviewed" in line]
    assert "reason risk said yes" in row
    events = cumulant("events", "list", "--kind", "model.aliased", *project, "--json").document
    assert [event["reason"] for event in events if event["data"]["alias"] == "reviewed"] == ["risk said yes"]


def test_data_show_has_a_column_for_personal_only_where_some_are(project: Path, cumulant: Any) -> None:
    file = project / "cumulant.yaml"
    call = ("data", "show", "--rows", "0", "--project", str(project))
    for personal in ("personal: [email]", "personal: []"):
        lines = [line for line in file.read_text().splitlines() if not line.strip().startswith("personal:")]
        where = next(place for place, line in enumerate(lines) if line.strip().startswith("key:"))
        file.write_text("\n".join([*lines[: where + 1], f"    {personal}", *lines[where + 1 :]]) + "\n")
        assert cumulant("data", "validate", "--project", str(project)).code == 0
        rows = [line.split() for line in cumulant(*call).out.splitlines()]
        heads = next(row for row in rows if row[:1] == ["column"])
        assert ("personal" in heads) == (personal == "personal: [email]")
        last = next(row for row in rows if row[:1] == ["email"])[-1]
        assert last == ("yes" if "personal" in heads else "row")


def test_the_salt_is_there_before_anything_must_be_hashed(project: Path, cumulant: Any) -> None:
    salt = project / ".cumulant" / "salt"
    assert not salt.exists()
    assert cumulant("data", "validate", "--project", str(project)).code == 0
    made = salt.read_bytes()
    assert len(made) >= 16
    assert cumulant("data", "show", "--project", str(project)).code == 0
    assert salt.read_bytes() == made


def test_a_salt_that_is_a_secret_is_not_needed_to_store_rows(project: Path, cumulant: Any) -> None:
    file = project / "cumulant.yaml"
    file.write_text(file.read_text() + 'environments:\n  local:\n    salt: "${secret:UNKNOWN_SALT}"\n')
    assert cumulant("data", "validate", "--project", str(project)).code == 0
    assert not (project / ".cumulant" / "salt").exists()


def test_validate_lists_only_columns_that_moved(project: Path, cumulant: Any, visits: Path) -> None:
    call = ("data", "validate", "--project", str(project))
    assert "moved" not in cumulant(*call).out
    file = project / "cumulant.yaml"
    file.write_text(file.read_text().replace("    key: visit\n", "    key: visit\n    known_time: {1d: [bought]}\n"))
    ended = cumulant(*call)
    assert "no column moved" in ended.out
    assert "Jensen-Shannon" not in ended.out
    lines = visits.read_text().splitlines()
    visits.write_text("\n".join([lines[0], *(line.replace(",mail,", ",phone,") for line in lines[1:])]) + "\n")
    moved = [line for line in cumulant(*call).out.splitlines() if " moved: " in line]
    assert [line.partition(" ")[0] for line in moved] == ["channel"]


@pytest.mark.slow
def test_rare_positives_without_a_cost_are_a_warning_with_the_lines_to_add(tmp_path: Path, cumulant: Any) -> None:
    import random

    dice = random.Random(3)
    rows = [(f"{dice.gauss(0, 1):.3f}", dice.choice("ab")) for _ in range(1500)]
    lines = ["size,kind,fraud", *(f"{size},{kind},{int(float(size) > 1.0 and kind == 'a')}" for size, kind in rows)]
    (tmp_path / "rare.csv").write_text("\n".join(lines) + "\n")
    made = cumulant(
        "new", "rare", "--from", str(tmp_path / "rare.csv"), "--target", "fraud", "--project", str(tmp_path), "--json"
    )
    assert any("threshold: {rate: " in line for line in made.document["warnings"])
    project = ("--project", str(tmp_path / "rare"))
    ended = cumulant("train", "--quick", *project)
    assert ended.code == 0, ended.err
    assert "warning: only " in ended.out
    assert "cost: {false_negative: " in ended.out
    again = cumulant("train", "--quick", *project, "--json").document["training"]
    (warning,) = [one for one in again["warnings"] if "threshold: {rate: " in one]
    assert "only " in warning
    assert again["notes"]
    for name in ("page.md", "page.html"):
        assert cumulant("report", "latest", "--out", str(tmp_path / name), *project).code == 0
        assert "threshold: {rate: " in (tmp_path / name).read_text()
    file = tmp_path / "rare" / "cumulant.yaml"
    file.write_text(file.read_text() + "  cost: {false_negative: 12, false_positive: 1}\n")
    warnings = cumulant("train", "--quick", *project, "--json").document["training"]["warnings"]
    assert not any("threshold: {rate: " in one for one in warnings)


def test_events_list_shortens_hashes_and_leaves_out_what_is_empty(trained: Path, cumulant: Any) -> None:
    out = cumulant("events", "list", "--last", "0", "--project", str(trained)).out
    assert re.search(r"step [0-9a-f]{12}, name ", out)
    assert not re.search(r"[0-9a-f]{64}", out)
    assert "–" not in out


def test_what_is_read_by_a_person_repeats_nothing_and_has_no_raw_names(trained: Path, cumulant: Any) -> None:
    project = ("--project", str(trained))
    out = cumulant("train", "--quick", *project).out
    assert "Average precision" in out or "Log loss" in out
    assert "_precision" not in out
    assert "log_loss" not in out
    assert f"--out report.html --project {trained}" in out
    assert "files    1, 0 of them new or changed" in cumulant("data", "validate", *project).out


def test_predict_to_a_file_goes_piece_by_piece(trained: Path, cumulant: Any, tmp_path: Path) -> None:
    lines = [f"v{n},{('search', 'mail')[n % 2]},{n % 30},2026-01-29T10:{n % 60:02d}:00Z,a" for n in range(300)]
    rows, out = tmp_path / "rows.csv", tmp_path / "answers.jsonl"
    rows.write_text("\n".join(["visit,channel,pages,began,note", *lines]) + "\n")
    shown = cumulant("predict", str(rows), "--project", str(trained), "--json").document["answers"]
    words = ("--input", str(rows), "--output", str(out), "--project", str(trained))
    ended = cumulant("predict", "shop@candidate", *words, "--keep", "note", "--part-rows", "40", "--json")
    assert ended.code == 0, ended.err
    assert (ended.document["rows"], ended.document["reused_rows"]) == (300, 0)
    assert ended.document["parts"] > 3
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row.pop("visit") for row in written] == [f"v{n}" for n in range(300)]
    assert {row.pop("note") for row in written} == {"a"}
    assert written == shown
    ended = cumulant("predict", *words)
    assert "300 answers, written to" in ended.out
    assert "rows/s on" in ended.out
    assert "not read by the model, and so ignored: note" in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("predict",), "no rows are named"),
        (("predict", "one", "--model", "two", "--input", "rows.csv"), 'two models are named: "one" and "two"'),
        (("predict", "rows.csv", "--keep", "id"), "add --output FILE"),
        (("predict", "rows.csv", "--reasons", "2"), "add --output FILE"),
        (("predict", "rows.csv", "--out", "x.csv", "--url", "http://127.0.0.1:9", "--reasons", "2"), "leave out --url"),
        (("predict", ".", "--input", "rows.csv", "--output", "x.csv", "--as-of", "2026-01-01"), "has no history"),
        (("predict", ".", "--input", "rows.csv", "--output", "x.csv"), "holds no servable"),
    ],
)
def test_words_of_predict_that_do_not_fit(
    words: tuple[str, ...], said: str, cumulant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = cumulant(*words)
    assert ended.code == 2
    assert said in ended.err
    assert list(tmp_path.iterdir()) == []


def test_versions_of_other_test_rows_are_said_to_differ() -> None:
    from cumulant.cli.training.models import _equal_rows
    from cumulant.core.servable import Servable
    from cumulant.flows.registry.models import MeasuredRows, ModelDetail
    from cumulant.ports.registry import ModelVersion

    def detail(number: str, identity: str | None) -> ModelDetail:
        version = ModelVersion(
            name="shop", version=number, uri=f"models:/shop/{number}", run_id=None, created=datetime.now(UTC)
        )
        rows = None if identity is None else MeasuredRows(rows=9, begin=None, end=None, identity=identity)
        return ModelDetail(version=version, metrics={}, servable=cast("Servable", None), measured=rows)

    assert _equal_rows([detail("1", "a"), detail("2", "a")]) == "the figures are of the same test rows"
    assert "different test rows" in _equal_rows([detail("9", "a"), detail("10", "b")])
    assert "cumulant evaluate shop/10" in _equal_rows([detail("9", "a"), detail("10", "b")])
    assert "not known" in _equal_rows([detail("1", "a"), detail("2", None)])


class _Labels(BaseHTTPRequestHandler):
    """Answers every request for a prediction; labels only where `takes` of its server is true."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server: Any = self.server
        self.rfile.read(int(self.headers["content-length"]))
        server.paths.append(self.path)
        refused = self.path == "/v1/labels" and not server.takes
        body = b'{"error": "no labels here", "hint": "serve the champion"}' if refused else b"{}"
        self.send_response(404 if refused else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_replay_whose_labels_are_refused_ends_with_the_reason_and_posts_them_later(
    trained: Path, cumulant: Any
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Labels) as server:
        state: Any = server
        state.takes, state.paths = False, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        period = ("--from", "2026-01-10", "--to", "2026-01-11", "--model", "shop/1", "--speed", "1000000x")
        line = ("replay", *period, "--url", f"http://127.0.0.1:{server.server_port}", "--project", str(trained))
        refused = cumulant(*line)
        assert refused.code == 1
        assert "0; not taken: 404: no labels here; serve the champion" in refused.out
        assert "run the same command again" in refused.err
        requests = state.paths.count("/v1/models/shop/predict")
        assert requests > 0
        state.takes, state.paths = True, []
        ended = cumulant(*line, "--json")
        server.shutdown()
    assert ended.code == 0
    assert (ended.document["done"], ended.document["labels"], set(state.paths)) == (True, requests, {"/v1/labels"})
