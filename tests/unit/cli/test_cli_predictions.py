"""`cumulant predictions`: what a person and a program see of the log."""

import json
import time
from pathlib import Path

import pytest

from cumulant.core.masking import mask
from cumulant.core.plan import Field
from cumulant.serving.prediction_log.entry import LogEntry
from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.serving.prediction_log.storage import log_folder
from cumulant.serving.prediction_log.storage.part_writer import LogParts
from cumulant.testing.log import folder_log

NOW = time.time_ns() // 1000
KEY = b"pepper"


def fill(folder):
    def failed(error, rows):
        raise error

    hiding = PersonalValueMask(KEY, {"shop": [Field("email", "str", personal=True)], "other": []})
    parts = LogParts(folder, hiding, file_size=1 << 26, failed=failed)
    for number in (1, 2, 5):
        one = LogEntry(
            id=f"r{number}",
            time_us=NOW + number,
            latency_us=1500,
            model="shop" if number < 5 else "other",
            version="3",
            sequence=number,
            event_times=[0, None],
            ages=[60.0],
            arm="a",
            served_arm="b",
            rows=b'[{"email":"ada@example.com","pages":4},{"email":null}]',
            answers=b'[{"prediction":true,"probability":0.75},{"prediction":false}]',
        )
        parts.add(one, "w.1", "eu")
    parts.close()
    log_folder.write_life(folder_log(folder), log_folder.WorkerLife(worker="w.1", started=1, last=6))


@pytest.fixture
def log(tmp_path):
    fill(tmp_path / "log")
    return str(tmp_path / "log")


def test_one_request_is_shown_with_its_personal_values_as_hashes(log, cumulant):
    ended = cumulant("predictions", "show", "r2", "--log", log)
    assert ended.code == 0, ended.err
    assert mask("ada@example.com", KEY) in ended.out
    assert "ada@" not in ended.out + ended.err
    for text in ("shop version 3", "1.50 ms", "a, answered by b", "1970-01-01", "r2 row 1"):
        assert text in ended.out
    first, second = cumulant("predictions", "show", "r2", "--log", log, "--json").document
    assert first["request"] == {"email": mask("ada@example.com", KEY), "pages": 4}
    assert first["outputs"] == {"prediction": True, "probability": 0.75}
    assert (first["event_time"], first["state_age"], first["sequence"]) == ("1970-01-01T00:00:00Z", 60.0, 2)
    assert (second["row"], second["event_time"], second["request"]) == (1, None, {"email": None})


def test_an_id_that_is_not_there(log, cumulant):
    ended = cumulant("predictions", "show", "r9", "--log", log)
    assert (ended.code, ended.out) == (2, "")
    assert 'no prediction with the id "r9"' in ended.err


def test_the_newest_are_listed(log, cumulant):
    rows = cumulant("predictions", "list", "--log", log, "--json").document
    assert [(row["id"], row["row"]) for row in rows] == [
        ("r5", 0),
        ("r5", 1),
        ("r2", 0),
        ("r2", 1),
        ("r1", 0),
        ("r1", 1),
    ]
    shop = cumulant("predictions", "list", "--log", log, "--model", "shop", "--limit", "1", "--json").document
    assert [row["id"] for row in shop] == ["r2"]
    assert len(cumulant("predictions", "list", "--since", "1h", "--log", log, "--json").document) == 6
    assert cumulant("predictions", "list", "--since", "2999-01-01", "--log", log, "--json").document == []
    text = cumulant("predictions", "list", "--log", log).out
    assert "prediction true, probability 0.75" in text
    assert "ada@" not in text
    ended = cumulant("predictions", "list", "--since", "soon", "--log", log)
    assert ended.code == 2
    assert "1h" in ended.err
    assert "no prediction in the log fits" in cumulant("predictions", "list", "--model", "nosuch", "--log", log).out


def test_gaps_are_told(log, cumulant):
    assert cumulant("predictions", "gaps", "--log", log, "--json").document == [
        {"worker": "w.1", "first": 3, "last": 4, "requests": 2},
        {"worker": "w.1", "first": 6, "last": 6, "requests": 1},
    ]
    assert "3 requests are missing" in cumulant("predictions", "gaps", "--log", log).out


def test_the_log_of_a_project(tmp_path: Path, cumulant, monkeypatch):
    from cumulant.project.file.loading import load

    monkeypatch.chdir(tmp_path)
    assert cumulant("new", "shop", "--template", "blank").code == 0
    words = ("--project", str(tmp_path / "shop"))
    assert "no prediction yet" in cumulant("predictions", "list", *words).out
    assert "no gap" in cumulant("predictions", "gaps", *words).out
    with load(tmp_path / "shop") as project:
        fill(project.state / "predictions")
    assert len(json.loads(cumulant("predictions", "list", *words, "--json").out)) == 6


def test_a_folder_that_is_not_there(tmp_path, cumulant):
    ended = cumulant("predictions", "list", "--log", str(tmp_path / "nothing"))
    assert ended.code == 2
    assert "no such folder" in ended.err
