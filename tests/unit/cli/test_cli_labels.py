"""`cumulant labels`: what a person and a program see."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import msgspec
import pytest

from cumulant.cli.monitoring.labels import meant, parts
from cumulant.core.errors import UsageError
from cumulant.outcomes.labels.label_fact import LabelFact

OLD = "request,at,p\n" + "".join(
    f"r{number},2026-10-0{1 + number % 3}T10:00:00Z,0.{number}\n" for number in range(1, 7)
)


@pytest.fixture
def filled(project, cumulant, tmp_path):
    (tmp_path / "old.csv").write_text(OLD)
    ended = cumulant(
        "labels",
        "import-predictions",
        str(tmp_path / "old.csv"),
        "--map",
        "id=request,time=at,score=p",
        "--version",
        "7",
        "--project",
        str(project),
    )
    assert ended.code == 0, ended.err
    assert "6 predictions came into the log" in ended.out
    return project


def ingest(cumulant, project, *words):
    return cumulant("labels", "ingest", *words, "--project", str(project), "--json")


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_labels_of_imported_predictions_are_joined_and_reported(filled, cumulant, tmp_path):
    known = {"known_time": "2026-10-09"}
    rows = [
        {"id": "r1", "bought": "yes", **known},
        {"id": "r2", "bought": "no", **known},
        {"id": "zz", "bought": "no", **known},
    ]
    path = write(
        tmp_path / "l.jsonl",
        *rows,
        rows[1],
        {"id": "r3", "bought": "yes", **known},
        {"id": "r3", "bought": "no", **known},
    )
    ended = ingest(cumulant, filled, path)
    assert (ended.code, ended.document["labelled"]) == (0, 2), ended.err
    assert ingest(cumulant, filled, path).document["sources"][0]["again"] is True
    found = cumulant("labels", "report", "--by", "week", "--project", str(filled), "--json").document
    assert [found[name] for name in ("rows", "duplicates", "unmatched", "predictions", "labelled", "contradicted")] == [
        6,
        1,
        1,
        6,
        2,
        1,
    ]
    assert {one["version"] for one in found["cohorts"]} == {"7"}
    text = cumulant("labels", "report", "--project", str(filled)).out
    assert "labels: 6 rows, 1 duplicate, 1 without a prediction in the log" in text
    assert "50.0%" in text
    shown = cumulant("labels", "show", "r1", "--project", str(filled), "--json").document
    assert (shown["predictions"][0]["label"], shown["labels"][0]["line"]) == ("yes", 1)
    odd = cumulant("labels", "list", "--state", "contradicted", "--project", str(filled), "--json").document
    assert {one["id"] for one in odd} == {"r3"}
    listed = cumulant("labels", "list", "--project", str(filled), "--json").document
    states = {(one["id"], one["state"]) for one in listed}
    assert states == {("r1", "usable"), ("r2", "usable"), ("r3", "contradicted"), ("zz", "unmatched")}
    lost = cumulant("labels", "list", "--state", "unmatched", "--project", str(filled), "--json").document
    assert [one["id"] for one in lost] == ["zz"]
    used = cumulant("labels", "list", "--state", "usable", "--project", str(filled), "--json").document
    assert [one["id"] for one in used] == ["r1", "r2", "r2"]
    assert "no label is waiting" in cumulant("labels", "list", "--state", "waiting", "--project", str(filled)).out
    assert "no prediction in the log" in cumulant("labels", "show", "zz", "--project", str(filled)).out
    assert "r3" in cumulant("labels", "list", "--project", str(filled)).out


def test_what_is_wrong_is_said_and_ends_with_a_code(filled, cumulant, tmp_path):
    nothing = ingest(cumulant, filled)
    assert (nothing.code, "no labels are named" in nothing.out + nothing.err) == (2, True)
    missing = ingest(cumulant, filled, str(tmp_path / "*.nothing"))
    assert (missing.code, "no file matches" in missing.out + missing.err) == (2, True)
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    assert ingest(cumulant, filled, str(tmp_path / "bad.csv")).code == 2
    write(tmp_path / "good.jsonl", {"id": "r1", "label": "yes"})
    both = ingest(cumulant, filled, str(tmp_path / "bad.csv"), str(tmp_path / "good.jsonl"))
    assert both.code == 0
    bad, good = both.document["sources"]
    assert ("does not say which" in bad["error"], good["rows"]) == (True, 1)
    assert cumulant("labels", "show", "nobody", "--project", str(filled)).code == 2


UNKNOWN = 3_000
BAD = {
    "unknown.csv": "id,label,known_time\n" + "".join(f"u{number},yes,2026-10-09\n" for number in range(UNKNOWN)),
    "first.csv": "id,label,known_time\nr1,yes,2026-10-09\nr1,yes,2026-10-09\n",
    "against.csv": "id,label,known_time\nr1,no,2026-10-09\n",
    "early.csv": "id,label,known_time\nr2,yes,1970-01-01\nr3,yes,2026-09-01\nr4,yes,2026-10-09\n",
    "future.csv": "id,label,known_time\nr5,yes,2999-01-01\nr6,no,9999-12-31\nr6,no,99999999999\n",
    "wrong.jsonl": '{"id":"r6","label":{"a":1}}\n{"id":["r6"],"label":"yes"}\n[1]\nnot json\n{"id":"r6","label":"yes","weight":-1}\n',
    "header.csv": "id,label,known_time\n",
    "blank.jsonl": "\n\n",
    "none.json": "[]",
}


def test_whatever_labels_say_it_is_kept_and_counted_in_words(filled, cumulant, tmp_path):
    for name, text in BAD.items():
        (tmp_path / name).write_text(text)
    found = {name: ingest(cumulant, filled, str(tmp_path / name)) for name in BAD}
    unusable = {name for name, one in found.items() if one.code == 1}
    sources = {name: one.document["sources"][0] for name, one in found.items()}
    assert unusable == {name for name, one in sources.items() if sum(one["problems"].values()) == one["rows"]}
    assert {one.code for one in found.values()} == {0, 1}
    assert [one.document["labelled"] for one in found.values()] == [0, 1, 0, 3, 0, 0, 0, 0, 0]
    assert found["wrong.jsonl"].document["sources"][0]["problems"] == {
        "wrong type": 1,
        "names no prediction": 1,
        "not a row": 2,
        "wrong weight": 1,
    }
    assert found["future.csv"].document["sources"][0]["problems"] == {"unreadable time": 2}
    said = cumulant("labels", "report", "--project", str(filled), "--json").document
    counted = ("rows", "unmatched", "duplicates", "contradicted", "early", "waiting", "labelled")
    assert [said[name] for name in counted] == [UNKNOWN + 14, UNKNOWN, 1, 1, 2, 1, 3]
    assert sum(said["problems"].values()) == 7
    shown = cumulant("labels", "report", "--project", str(filled)).out
    assert "2 labelled predictions have a label that was known before them" in shown
    assert f"{UNKNOWN:,} without a prediction in the log" in shown
    assert "2 unreadable time" in shown
    at_odds = cumulant("labels", "list", "--state", "contradicted", "--project", str(filled), "--json").document
    assert sorted((one["source"], one["line"]) for one in at_odds) == [
        ("against.csv", 2),
        ("first.csv", 2),
        ("first.csv", 3),
    ]


def test_a_half_written_parquet_file_is_told_and_taken_in_when_it_is_whole(filled, cumulant, tmp_path):
    import polars as pl

    path = tmp_path / "labels.parquet"
    pl.DataFrame({"id": ["r1", "r2"], "label": ["yes", "no"], "known_time": ["2026-10-09"] * 2}).write_parquet(path)
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], whole[4:], b"PAR1", b""):
        path.write_bytes(part)
        ended = cumulant("labels", "ingest", str(path), "--project", str(filled))
        assert ended.code == 2
        assert "damaged or cut off" in ended.err or "is empty (0 bytes)" in ended.err
    path.write_bytes(whole)
    assert ingest(cumulant, filled, str(path)).document["labelled"] == 2


def test_a_report_of_many_days_shows_the_newest_and_sums_up_the_others(project, cumulant, tmp_path):
    days = [f"2026-{1 + number // 28:02d}-{1 + number % 28:02d}" for number in range(50)]
    lines = "".join(f"d{number},{day}T10:00:00Z,0.5\n" for number, day in enumerate(days))
    (tmp_path / "days.csv").write_text(f"request,at,p\n{lines}")
    mapped = ["--map", "id=request,time=at,score=p"]
    (tmp_path / "useless.csv").write_text("request,at,p\n,2026-01-01T10:00:00Z,0.5\n")
    useless = cumulant(
        "labels", "import-predictions", str(tmp_path / "useless.csv"), *mapped, "--project", str(project)
    )
    assert (useless.code, "0 predictions came into the log, 1 rows have no id" in useless.out) == (1, True)
    cumulant("labels", "import-predictions", str(tmp_path / "days.csv"), *mapped, "--project", str(project))
    rows = [{"id": f"d{number}", "bought": "yes"} for number in range(15)]
    assert ingest(cumulant, project, write(tmp_path / "l.jsonl", *rows)).document["labelled"] == 15
    text = cumulant("labels", "report", "--project", str(project)).out
    assert "30 earlier cohorts have 30 predictions, 50.0% labelled" in text
    assert (days[29] in text, days[30] in text, "predictions: 50, of these 15 labelled (30.0%)" in text) == (
        False,
        True,
        True,
    )
    assert len(text.splitlines()) < 30
    assert len(cumulant("labels", "report", "--json", "--project", str(project)).document["cohorts"]) == 50


def test_without_a_model_nothing_starts_mlflow(filled, tmp_path):
    code = f"""
import sys
from cumulant.cli.app import run
for words in (["ingest", {write(tmp_path / "l.jsonl", {"id": "r1", "bought": "yes"})!r}], ["list"], ["report"]):
    assert run(["labels", *words, "--project", {str(filled)!r}]) == 0
print("mlflow" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "False"


def test_the_project_file_names_the_labels(filled, cumulant, tmp_path):
    (filled / "landed").mkdir()
    write(filled / "landed" / "one.jsonl", {"id": "r1", "label": "yes"})
    with (filled / "cumulant.yaml").open("a") as stream:
        stream.write("monitoring: {labels: 'landed/*.jsonl'}\n")
    assert ingest(cumulant, filled).document["labelled"] == 1


def test_a_file_without_a_usable_row_ends_with_1(filled, cumulant, tmp_path):
    none = write(tmp_path / "none.jsonl", {"id": 7.5, "label": "yes"}, {"label": "yes"})
    ended = ingest(cumulant, filled, none)
    assert ended.code == 1, ended
    assert sum(ended.document["sources"][0]["problems"].values()) == 2
    some = write(tmp_path / "some.jsonl", {"label": "no"}, {"id": "r1", "label": "yes"})
    assert ingest(cumulant, filled, some).code == 0
    assert ingest(cumulant, filled, none).code == 0, "taken in before"


def test_a_file_that_was_taken_in_before_counts_one_row_as_one(filled, cumulant, tmp_path):
    file = write(tmp_path / "one.jsonl", {"id": "r1", "label": "yes"})
    assert ingest(cumulant, filled, file).code == 0
    again = cumulant("labels", "ingest", str(file), "--project", str(filled)).out
    assert "one.jsonl: ingested before, 1 row\n" in again


@pytest.mark.parametrize("name", ["broken.csv", "none.csv"])
def test_a_file_is_named_as_the_caller_names_it(filled, cumulant, tmp_path, monkeypatch, name):
    (tmp_path / "broken.csv").write_text("a\n1\n")
    monkeypatch.chdir(tmp_path)
    ended = cumulant("labels", "ingest", name, "--project", str(filled))
    assert ended.code == 2
    assert name in ended.err
    assert str(tmp_path) not in ended.err


def test_the_name_of_a_broken_file_is_said_once(filled, cumulant, tmp_path):
    (tmp_path / "broken.csv").write_text("a\n1\n")
    write(tmp_path / "one.jsonl", {"id": "r1", "label": "yes"})
    said = cumulant("labels", "ingest", f"{tmp_path}/broken.csv", f"{tmp_path}/one.jsonl", "--project", str(filled)).out
    assert said.count("broken.csv") == 1
    assert str(tmp_path) not in said


def test_a_watched_folder_is_taken_in_as_it_fills(filled, tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    line = [sys.executable, "-m", "cumulant.cli", "labels", "ingest", "--watch", str(folder), "--project", str(filled)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            (folder / "broken.csv").write_text("a\n1\n")
            write(folder / "one.jsonl", {"id": "r1", "label": "yes"})
            said = ""
            until = time.monotonic() + 90
            while "1 prediction has a label now" not in said and time.monotonic() < until:
                said += process.stdout.readline()
            assert "nothing was ingested: broken.csv " in said
            assert "one.jsonl: 1 row\n" in said
        finally:
            process.send_signal(signal.SIGTERM)


def test_the_parts_of_a_map():
    assert parts("id=a, label=b") == {"id": "a", "label": "b"}
    assert parts(None) == {}
    for text in ("id", "id=", "id=a,id=b"):
        with pytest.raises(UsageError, match="names no column"):
            parts(text)


def test_a_key_without_a_time_is_shown_alone():
    at = datetime(2026, 10, 1, tzinfo=UTC)
    one = LabelFact(
        state="refused",
        id=None,
        row=None,
        key=["1699-TLDLZ"],
        event_time=None,
        model="",
        label=True,
        known_time=at,
        weight=1.0,
        problem="names no prediction",
        source="x.csv",
        line=1,
        received=at,
    )
    assert meant(one) == "1699-TLDLZ"
    assert meant(msgspec.structs.replace(one, event_time=at)) == "1699-TLDLZ at 2026-10-01 00:00:00+00:00"
