"""`cumulant labels`: what a person and a program see."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cumulant.cli.labels import parts
from cumulant.core.errors import UsageError

OLD = "request,at,p\n" + "".join(
    f"r{number},2026-10-0{1 + number % 3}T10:00:00Z,0.{number}\n" for number in range(1, 7)
)


@pytest.fixture
def filled(project, cumulant, tmp_path):
    (tmp_path / "old.csv").write_text(OLD)
    ended = cumulant(
        "labels", "import-predictions", str(tmp_path / "old.csv"), "--map", "id=request,time=at,score=p", "--version", "7",
        "--project", str(project),
    )  # fmt: skip
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
    assert "1 duplicates" in text
    assert "50.0%" in text
    shown = cumulant("labels", "show", "r1", "--project", str(filled), "--json").document
    assert (shown["predictions"][0]["label"], shown["said"][0]["line"]) == ("yes", 1)
    odd = cumulant("labels", "list", "--state", "contradicted", "--project", str(filled), "--json").document
    assert {one["id"] for one in odd} == {"r3"}
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


def test_the_project_file_names_the_labels(filled, cumulant, tmp_path):
    (filled / "landed").mkdir()
    write(filled / "landed" / "one.jsonl", {"id": "r1", "label": "yes"})
    with (filled / "cumulant.yaml").open("a") as stream:
        stream.write("monitoring: {labels: 'landed/*.jsonl'}\n")
    assert ingest(cumulant, filled).document["labelled"] == 1


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
            while "1 predictions have a label now" not in said and time.monotonic() < until:
                said += process.stdout.readline()
            assert "broken.csv: nothing was taken in" in said
            assert "one.jsonl: 1 rows" in said
        finally:
            process.send_signal(signal.SIGTERM)


def test_the_parts_of_a_map():
    assert parts("id=a, label=b") == {"id": "a", "label": "b"}
    assert parts(None) == {}
    for text in ("id", "id=", "id=a,id=b"):
        with pytest.raises(UsageError, match="names no column"):
            parts(text)
