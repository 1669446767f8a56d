"""Commands on a real, small project, up to training."""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from cumulant.cli.project.doctor import EXTRAS, disk, writable
from cumulant.cli.project.plan import held_out


def test_new_says_what_it_assumed_and_refuses_a_taken_place(project: Path, cumulant: Any, tmp_path: Path) -> None:
    assert (project / "cumulant.yaml").is_file()
    words = ("new", "shop", "--from", str(tmp_path / "visits.csv"), "--target", "bought", "--project", str(tmp_path))
    ended = cumulant(*words)
    assert ended.code == 2
    assert "shop" in ended.err


def test_new_needs_a_target_and_no_template_beside_a_file(cumulant: Any, tmp_path: Path) -> None:
    assert "--target" in cumulant("new", "x", "--from", "y.csv", "--project", str(tmp_path)).err
    assert cumulant("new", "x", "--from", "y.csv", "--template", "blank", "--target", "z").code == 2
    assert cumulant("new", "x", "--target", "z").code == 2
    ended = cumulant("new", "x", "--template", "flihgts", "--project", str(tmp_path))
    assert ended.code == 2
    assert 'did you mean "flights"?' in ended.err


def test_new_from_a_template(cumulant: Any, tmp_path: Path) -> None:
    ended = cumulant("new", "mine", "--template", "blank", "--project", str(tmp_path), "--json")
    assert ended.code == 0
    assert ended.document["path"] == str(tmp_path / "mine")
    assert ended.document["assumptions"]


def test_plan_shows_what_would_run(project: Path, cumulant: Any) -> None:
    ended = cumulant("plan", "--project", str(project), "--json")
    assert ended.code == 0, ended.err
    assert ended.document["target"] == "bought"
    assert ended.document["sources"][0]["rows"] == 400
    text = cumulant("plan", "--project", str(project))
    assert "bought" in text.out
    assert "channel" in text.out
    assert "compile everywhere: all" in text.out


def test_features_of_rows_that_prepare_returns_are_batch_only(project: Path, cumulant: Any) -> None:
    (project / "clean.py").write_text("import polars as pl\n\ndef clean(frame: pl.DataFrame):\n    return frame\n")
    file = project / "cumulant.yaml"
    file.write_text(re.sub(r"^( +)path:", r"\1prepare: clean.py:clean\n\1path:", file.read_text(), flags=re.MULTILINE))
    text = cumulant("plan", "--project", str(project))
    assert text.code == 0, text.err
    assert "compile everywhere: none" in text.out
    assert "batch only: made of rows that clean.py:clean returns; servers expect such rows" in text.out
    shown = cumulant("features", "show", "--project", str(project))
    assert "batch only: made of rows that clean.py:clean returns" in shown.out
    listed = cumulant("features", "show", "--project", str(project), "--json").document["features"]
    assert {(each["tier"], *each["functions"]) for each in listed} == {("batch", "clean.py:clean")}


def test_plan_refuses_a_watched_slice_with_a_misspelt_field(project: Path, cumulant: Any) -> None:
    file, told = project / "cumulant.yaml", "monitoring: {review: {budget: 5/day, slices: ['%s > 3']}}\n"
    plain = file.read_text()
    for name, code in (("pagez", 2), ("pages", 0), ("something_that_callers_send", 0)):
        file.write_text(plain + told % name)
        ended = cumulant("plan", "--project", str(project))
        assert (ended.code, 'did you mean "pages"?' in ended.err) == (code, bool(code)), ended.err


def test_plan_resolved_shows_every_value_with_its_origin(project: Path, cumulant: Any) -> None:
    rows = cumulant("plan", "--resolved", "--project", str(project), "--json").document
    origins = {row["path"]: row["origin"] for row in rows}
    assert origins["training.target"].startswith("cumulant.yaml:")
    assert origins["training.trials"] == "default"
    text = cumulant("plan", "--resolved", "--project", str(project)).out
    assert "training.target" in text


def test_a_fault_in_the_project_file_has_its_line_and_the_nearest_key(project: Path, cumulant: Any) -> None:
    file = project / "cumulant.yaml"
    file.write_text(file.read_text().replace("training:\n", "training:\n  trails: 3\n"))
    line = file.read_text().splitlines().index("  trails: 3") + 1
    ended = cumulant("plan", "--project", str(project))
    assert ended.code == 2
    assert f"cumulant.yaml:{line}" in ended.err
    assert "trials" in ended.err
    problems = cumulant("plan", "--project", str(project), "--json").document["error"]["problems"]
    assert problems[0]["line"] == line


def test_rows_are_counted_and_the_second_time_is_known(project: Path, cumulant: Any) -> None:
    first = cumulant("data", "validate", "--project", str(project), "--json").document
    (source,) = first["sources"].values()
    assert source["rows_in"] == source["rows_passed"] + source["rows_quarantined"] + source["rows_dropped"] == 400
    second = cumulant("data", "validate", "--project", str(project), "--json").document
    assert second["reused"] == ["rows"]
    text = cumulant("data", "validate", "--project", str(project)).out
    assert "400  =  400 passed + 0 quarantined" in text


def test_a_breached_contract_ends_with_1_and_its_rows_can_be_seen(project: Path, cumulant: Any, tmp_path: Path) -> None:
    file = project / "cumulant.yaml"
    text = file.read_text()
    rules = "    rules:\n      bought: {type: str, in: [no, yes]}\n"
    assert rules in text
    file.write_text(text.replace(rules, "    rules: {pages: {max: 20}}\n", 1))
    ended = cumulant("data", "validate", "--project", str(project))
    assert ended.code == 1
    assert "contract-breach" in ended.err
    seen = cumulant("data", "quarantine", "rows", "--project", str(project), "--json")
    assert seen.code == 0
    assert seen.document["rows_quarantined"] > 4
    assert seen.document["rules"] == {"pages:max": seen.document["rows_quarantined"]}
    by_rule = f"by rule: pages:max {seen.document['rows_quarantined']:,}"
    assert by_rule in cumulant("data", "quarantine", "rows", "--project", str(project)).out
    assert all(int(float(row["pages"])) > 20 for row in seen.document["rows"])
    out = tmp_path / "refused.csv"
    assert cumulant("data", "quarantine", "rows", "--out", str(out), "--project", str(project)).code == 0
    assert len(out.read_text().splitlines()) == seen.document["rows_quarantined"] + 1


def test_quarantine_can_be_shown_by_file(project: Path, cumulant: Any, tmp_path: Path) -> None:
    for name in ("north", "south"):
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        (folder / "day.csv").write_text(f"visit,pages,bought\n{name},-1,yes\n{name}2,3,no\n")
    text = (
        f"version: 1\nmodel: {{name: m}}\ndata: {{rows: {{path: {tmp_path}/in, quarantine: 1, "
        "rules: {pages: {min: 0}}}}\ntraining: {target: bought}\n"
    )
    (project / "cumulant.yaml").write_text(text)
    assert cumulant("data", "validate", "--project", str(project)).code == 0
    shown = cumulant("data", "quarantine", "--file", "north/day.csv", "--json", "--project", str(project)).document
    assert [row["visit"] for row in shown["rows"]] == ["north"]
    assert shown["rows_quarantined"] == 1
    assert (
        "1 row from north/day.csv"
        in cumulant("data", "quarantine", "--file", "north/day.csv", "--project", str(project)).out
    )
    absent = cumulant("data", "quarantine", "--file", "nort/day.csv", "--project", str(project))
    assert absent.code == 2
    assert 'has no file "nort/day.csv"' in absent.err


def test_personal_values_are_never_printed(project: Path, cumulant: Any) -> None:
    assert "personal: [email]" in (project / "cumulant.yaml").read_text()
    assert cumulant("data", "validate", "--project", str(project)).code == 0
    for words in (
        ("data", "show", "rows", "--rows", "50"),
        ("data", "show", "rows", "--rows", "50", "--json"),
        ("data", "quarantine", "rows"),
        ("events", "list"),
        ("runs", "show", "latest"),
        ("plan",),
    ):
        ended = cumulant(*words, "--project", str(project))
        assert ended.code == 0, ended.err
        assert "@example.com" not in ended.out + ended.err


@pytest.mark.parametrize("target", ["email", "(email > 'm') & (pages > 2)"])
def test_a_personal_target_is_refused_before_anything_is_trained(project: Path, cumulant: Any, target: str) -> None:
    file = project / "cumulant.yaml"
    file.write_text(file.read_text().replace("target: bought", f'target: "{target}"'))
    for words in (("plan",), ("train", "--quick"), ("plan", "--json")):
        ended = cumulant(*words, "--project", str(project))
        assert ended.code == 2, ended.err
        said = ended.out + ended.err
        assert "would show values of email, a personal column of rows" in said
        assert "take email out of `personal` under data: rows:" in said
        assert "@example.com" not in said
    flows = [one["flow"] for one in cumulant("runs", "list", "--project", str(project), "--json").document]
    assert "train" in flows
    kinds = {one["kind"] for one in cumulant("events", "list", "--project", str(project), "--json").document}
    assert "training.trial_finished" not in kinds
    file.write_text(file.read_text().replace("    personal: [email]\n", ""))
    ended = cumulant("plan", "--project", str(project))
    assert "a personal column" not in ended.err


def test_features_are_told_and_their_values_shown(project: Path, cumulant: Any, tmp_path: Path) -> None:
    told = cumulant("features", "show", "--project", str(project), "--json").document
    names = [feature["name"] for feature in told["features"]]
    assert "channel" in names
    assert {(feature["tier"], *feature["functions"]) for feature in told["features"]} == {("everywhere",)}
    assert "bought" not in names
    got = cumulant("features", "get", "--rows", "3", "--project", str(project), "--json").document
    assert (got["rows"], len(got["values"])) == (400, 3)
    assert cumulant("features", "get", "--project", str(project)).code == 0
    out = tmp_path / "features.jsonl"
    assert cumulant("features", "get", "--out", str(out), "--project", str(project), "--json").code == 0
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["__row"] for row in written] == list(range(400))
    assert len({row["visit"] for row in written}) == 400  # the key, which is no feature
    ended = cumulant("features", "get", "--out", str(tmp_path / "features.xls"), "--project", str(project))
    assert ended.code == 2


@pytest.mark.parametrize("command", ["show", "forget"])
def test_a_key_without_a_value_has_no_stored_state(project: Path, cumulant: Any, command: str) -> None:
    ended = cumulant("features", command, "channel=", "--project", str(project))
    assert ended.code == 2
    assert "the key has no value of channel, and nothing is stored of rows without one" in ended.err


def test_a_rollback_without_a_model_is_of_the_project(project: Path, cumulant: Any) -> None:
    ended = cumulant("rollback", "--reason", "complaints", "--project", str(project))
    assert ended.code == 2
    assert "shop has no earlier version here to go back to" in ended.err


def test_features_are_shown_before_a_label_is_known(project: Path, cumulant: Any) -> None:
    """The list of the features needs no trainer, no label and no test rows; `plan` does."""
    file = project / "cumulant.yaml"
    text = re.sub(r"  trainers: .*", "  trainers: ['none.py:forest']", file.read_text())
    file.write_text(text.replace("  target: bought\n", "  target: bought > 5\n", 1))
    assert "there is no file none.py" in cumulant("plan", "--project", str(project)).err
    ended = cumulant("features", "show", "--project", str(project), "--json")
    assert ended.code == 0, ended.err
    assert "channel" in [feature["name"] for feature in ended.document["features"]]
    file.write_text(text.replace("  target: bought\n", "  target: bought > 5\n", 1))
    assert cumulant("plan", "--project", str(project)).code != 0
    assert cumulant("features", "show", "--project", str(project)).code == 0


def test_features_made_of_personal_values_are_hashed(project: Path, cumulant: Any) -> None:
    definitions = project / "features.py"
    more = 'who = rows.columns("email")\nhost = col("email").str.lower()\nwidth = col("email").str.length()\n'
    text = definitions.read_text().replace("import source", "import col, source") + more
    definitions.write_text(text)
    ended = cumulant("features", "get", "--rows", "2", "--project", str(project), "--json")
    assert ended.code == 0, ended.err
    (row, _) = ended.document["values"]
    assert row["email"].startswith("#")
    assert row["host"].startswith("#")
    assert row["width"] == len("person0@example.com")
    assert "@example.com" not in cumulant("features", "get", "--project", str(project)).out


def test_runs_and_their_steps(project: Path, cumulant: Any) -> None:
    assert cumulant("runs", "list", "--project", str(project)).code == 0
    assert cumulant("runs", "show", "latest", "--project", str(project)).code == 2
    cumulant("data", "validate", "--project", str(project))
    runs = cumulant("runs", "list", "--project", str(project), "--json").document
    assert [run["flow"] for run in runs] == ["validate"]
    shown = cumulant("runs", "show", runs[0]["id"][:16], "--project", str(project), "--json").document
    assert shown["status"] == "done"
    assert [step["reused"] for step in shown["steps"]] == [False]
    assert shown["steps"][0]["seconds"] > 0
    text = cumulant("runs", "show", "--project", str(project)).out
    assert "time" in text.partition("step")[2]
    ended = cumulant("runs", "show", "nothing", "--project", str(project))
    assert ended.code == 2


def test_events_list_follow_export_and_verify(project: Path, cumulant: Any, tmp_path: Path) -> None:
    cumulant("data", "validate", "--project", str(project))
    events = cumulant("events", "list", "--project", str(project), "--json").document
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    kinds = cumulant("events", "list", "--kind", "run.started", "--project", str(project), "--json").document
    assert [event["kind"] for event in kinds] == ["run.started"]
    followed = cumulant("events", "follow", "--after", "0", "--for", "0", "--project", str(project), "--json").out
    assert [json.loads(line)["seq"] for line in followed.splitlines()] == [event["seq"] for event in events]
    assert "run.started" in cumulant("events", "follow", "--after", "0", "--for", "0s", "--project", str(project)).out
    mistyped = cumulant("events", "list", "--kind", "acess.refused", "--project", str(project))
    assert (mistyped.code, 'did you mean "access.refused"?' in mistyped.err) == (0, True)
    out = tmp_path / "events.jsonl"
    assert cumulant("events", "export", str(out), "--project", str(project), "--json").document["events"] == len(events)
    assert [json.loads(line)["hash"] for line in out.read_text().splitlines()] == [event["hash"] for event in events]
    assert len(cumulant("events", "export", "-", "--project", str(project)).out.splitlines()) == len(events)
    reader, writer = os.pipe()  # as `/dev/stdout` and `>(...)` are
    assert cumulant("events", "export", f"/dev/fd/{writer}", "--project", str(project)).code == 0
    os.close(writer)
    with open(reader, "rb") as stream:
        assert stream.read() == out.read_bytes()
    found = cumulant("events", "verify", "--project", str(project), "--json").document
    assert found["holds"] is True
    assert (found["rows"] > 0, found["rows_since"]) == (True, 2)  # the first event is the decision
    ended = cumulant("events", "verify", "--project", str(project), "--head", found["head"][:12])
    assert (ended.code, f"{found['rows']} state rows are as written" in ended.out) == (0, True)
    ended = cumulant("events", "verify", "--project", str(project), "--head", "0" * 12)
    assert (ended.code, "has no event 000000000000" in ended.err) == (1, True)
    assert cumulant("events", "verify", "--project", str(project), "--head", "nothing").code == 2


def test_events_verify_names_the_checkpoint(project: Path, cumulant: Any, tmp_path: Path) -> None:
    with (project / "cumulant.yaml").open("a") as file:
        file.write(f"environments: {{local: {{audit: 'file://{tmp_path / 'audit'}'}}}}\n")
    cumulant("data", "validate", "--project", str(project))
    assert "no checkpoint is signed yet" in cumulant("events", "verify", "--project", str(project)).out
    signed = cumulant("events", "checkpoint", "--project", str(project), "--json").document
    verified = cumulant("events", "verify", "--project", str(project))
    assert f"checkpoint {signed['key']} holds: it signed the events up to {signed['size']}" in verified.out


def test_an_altered_event_is_found(project: Path, cumulant: Any) -> None:
    cumulant("data", "validate", "--project", str(project))
    (file,) = (project / ".cumulant").rglob("journal*.db")
    with sqlite3.connect(file) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        (table,) = [name for name in tables if "event" in name]
        triggers = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        for trigger in triggers:
            database.execute(f"DROP TRIGGER {trigger}")
        changed = """replace(CAST(envelope AS TEXT), '"actor":"', '"actor":"mallory, not ')"""
        database.execute(f"UPDATE {table} SET envelope = CAST({changed} AS BLOB) WHERE seq = 2")
    database.close()
    ended = cumulant("events", "verify", "--project", str(project))
    assert ended.code == 1
    assert "event 2" in ended.err
    document = cumulant("events", "verify", "--project", str(project), "--json")
    assert document.code == 1
    assert document.document["breaks"][0]["seq"] == 2
    out = str(project / "events.jsonl")
    exported = cumulant("events", "export", out, "--project", str(project))
    assert (exported.code, "the chain of events does not hold: event 2" in exported.err) == (0, True)
    later = cumulant("events", "export", out, "--after", "2", "--project", str(project))
    assert "does not hold" not in later.err


def test_an_altered_state_row_is_found(project: Path, cumulant: Any) -> None:
    cumulant("data", "validate", "--project", str(project))
    with sqlite3.connect(project / ".cumulant" / "journal.db") as database:
        database.execute("UPDATE state SET value = '{}' WHERE kind = 'run'")
    database.close()
    ended = cumulant("events", "verify", "--project", str(project))
    assert (ended.code, "a state row was changed outside Cumulant: state row run " in ended.err) == (1, True)
    document = cumulant("events", "verify", "--project", str(project), "--json")
    assert (document.code, document.document["breaks"][0]["row"].split()[2]) == (1, "run")


def test_a_command_in_a_folder_below_finds_the_project(
    project: Path, cumulant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = project / "notebooks" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert cumulant("plan", "--resolved", "--json").code == 0


def test_unknown_sources_environments_and_snapshots(project: Path, cumulant: Any) -> None:
    ended = cumulant("data", "show", "row", "--project", str(project))
    assert ended.code == 2
    assert 'did you mean "rows"?' in ended.err
    ended = cumulant("data", "show", "rows", "--project", str(project))
    assert ended.code == 2
    assert "cumulant data validate rows" in ended.err
    assert cumulant("plan", "--env", "prod", "--project", str(project)).code == 2


def test_doctor_finds_a_broken_project_and_a_taken_port(project: Path, cumulant: Any) -> None:
    import socket

    ended = cumulant("doctor", "--project", str(project), "--json")
    assert ended.code == 0, ended.out
    assert ended.document["healthy"] is True
    features = project / "features.py"
    text = features.read_text()
    features.unlink()
    ended = cumulant("doctor", "--project", str(project))
    assert (ended.code, "features.py is not there" in ended.out.replace("\n", "")) == (1, True), ended.out
    features.write_text(text)
    (project / "cumulant.yaml").write_text("version: 1\nmodle: {}\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = cumulant("doctor", "--project", str(project), "--port", str(taken.getsockname()[1]))
    assert ended.code == 1
    assert "modle" in ended.out
    assert "cumulant serve --port" in ended.out


@pytest.mark.parametrize(
    ("machine", "hint"),
    [(None, 'pip install "cumulant[release]"'), ("riscv64", "no wheel of it is published for this system")],
)
def test_a_missing_gateway_is_said_by_all_that_need_one(
    project: Path, cumulant: Any, monkeypatch: Any, machine: str | None, hint: str
) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(platform, "machine", lambda: machine or {"linux": "x86_64"}.get(sys.platform, "arm64"))
    place = ("--project", str(project))
    ended = cumulant("doctor", *place, "--json")
    (found,) = [one for one in ended.document["checks"] if one["check"] == "gateway"]
    assert (found["state"], hint in found["fix"], ended.document["healthy"]) == ("warn", True, True)
    ended = cumulant("plan", *place, "--json")
    assert (ended.code, [hint in one for one in ended.document["warnings"]]) == (0, [True])
    for command in (("up", "--http", "127.0.0.1:0"), ("release", "start")):
        ended = cumulant(*command, *place)
        assert ended.code == 2, "no retry helps"
        assert hint in " ".join(ended.err.split())


def test_the_gateway_of_earlier_versions_is_refused_by_all_that_need_one(project: Path, cumulant: Any) -> None:
    file = project / "cumulant.yaml"
    file.write_text(file.read_text() + "environments: {old: {traffic: 'local://'}}\n")
    for command in (("plan",), ("up", "--http", "127.0.0.1:0"), ("release", "start")):
        ended = cumulant(*command, "--project", str(project), "--env", "old")
        assert ended.code == 2
        assert "write `traffic: envoy://`, or leave it out" in " ".join(ended.err.split())


def test_doctor_fails_on_a_full_disk(tmp_path: Path) -> None:
    mounted = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mounted, check=False, capture_output=True).returncode != 0:
        pytest.skip("only root may make a small disk")
    try:
        with suppress(OSError), (tmp_path / "ballast").open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        for one in (writable(tmp_path), disk(tmp_path)):
            assert one.state == "fail", one
            assert "free space" in one.fix
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_infer_proposes_rules_and_writes_a_contract(visits: Path, cumulant: Any, tmp_path: Path) -> None:
    ended = cumulant("data", "infer", str(visits), "--out", str(tmp_path / "visits.odcs.yaml"), "--json")
    assert ended.code == 0, ended.err
    assert ended.document["source"]["key"] == "visit"
    assert "kind: DataContract" in (tmp_path / "visits.odcs.yaml").read_text()
    text = cumulant("data", "infer", str(visits)).out
    assert "channel: {in: [mail, search, shop]}" in text


def test_infer_of_nothing(cumulant: Any, tmp_path: Path) -> None:
    assert cumulant("data", "infer", str(tmp_path / "nowhere.csv")).code == 2
    (tmp_path / "empty.csv").write_text("")
    assert cumulant("data", "infer", str(tmp_path / "empty.csv")).code == 2


def test_doctor_names_state_that_other_users_can_read(project: Path, cumulant: Any) -> None:
    def check() -> dict[str, str]:
        ended = cumulant("doctor", "--project", str(project), "--json")
        return next(one for one in ended.document["checks"] if one["check"] == "state access")

    (project / ".cumulant").mkdir(exist_ok=True)
    (project / ".cumulant").chmod(0o755)
    assert check()["state"] == "ok"
    assert (project / ".cumulant").stat().st_mode & 0o077 == 0
    shared = project / "shared.db"
    shared.touch()
    shared.chmod(0o644)
    text = (project / "cumulant.yaml").read_text()
    (project / "cumulant.yaml").write_text(text + f"\nenvironments: {{local: {{journal: 'sqlite://{shared}'}}}}\n")
    found = check()
    assert (found["state"], found["fix"]) == ("warn", f"chmod o-rwx {shared}")
    assert "0644" in found["detail"]


def test_a_plan_says_which_rows_are_the_test() -> None:
    assert held_out("20%", timed=True) == "the last 20%"
    assert held_out("20%", timed=False) == "20% of rows, by the hash of what identifies them"


def test_the_parts_that_doctor_looks_for_come_with_the_extra_that_it_names() -> None:
    with (Path(__file__).parents[3] / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    distributions = packages_distributions()
    for extra, modules in EXTRAS.items():
        required = {re.split(r"[^\w.-]", line)[0] for line in extras[extra]}
        assert [
            module for module in modules if not required & {name.lower() for name in distributions[module]}
        ] == [], extra
