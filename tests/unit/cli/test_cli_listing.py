"""What a list says of the rows that it does not show, and of none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def filled(project: Path, cumulant: Any, tmp_path: Path) -> Path:
    """A project with 25 predictions, as many labels of them, and 5 labels that cannot be used."""
    old = "request,at,p\n" + "".join(f"r{number},2026-10-01T10:00:00Z,0.5\n" for number in range(25))
    (tmp_path / "old.csv").write_text(old)
    names = ("--map", "id=request,time=at,score=p", "--version", "7", "--project", str(project))
    assert cumulant("labels", "import-predictions", str(tmp_path / "old.csv"), *names).code == 0
    labels = [f"r{number},yes,2026-10-02" for number in range(25)] + ["r1,,2026-10-02"] * 5
    (tmp_path / "labels.csv").write_text("id,label,known_time\n" + "\n".join(labels) + "\n")
    told = cumulant("labels", "ingest", str(tmp_path / "labels.csv"), "--project", str(project))
    assert told.code == 0, told.err
    assert "labels.csv: 30 rows, 5 refused (5 no label)" in told.out
    return project


def test_a_list_that_is_cut_says_of_how_many(filled: Path, cumulant: Any) -> None:
    def out(*words: str) -> str:
        return str(cumulant(*words, "--project", str(filled)).out)

    assert "20 of 30; --limit N for more" in out("labels", "list")
    assert "3 of 5; --limit N for more" in out("labels", "list", "--state", "refused", "--limit", "3")
    assert "for more" not in out("labels", "list", "--state", "refused")
    assert "for more" not in out("labels", "list", "--limit", "30")
    assert "the newest 20; --limit N for more" in out("predictions", "list")
    assert "for more" not in out("predictions", "list", "--limit", "25")
    assert "; --last N for more" in out("events", "list", "--last", "1")
    assert cumulant("data", "validate", "--project", str(filled)).code == 0
    assert cumulant("data", "validate", "--project", str(filled)).code == 0
    assert "1 of 2; --last N for more" in out("runs", "list", "--last", "1")


def test_a_refused_label_names_the_line_of_its_file(filled: Path, cumulant: Any) -> None:
    assert "labels.csv:27" in cumulant("labels", "list", "--state", "refused", "--project", str(filled)).out


def test_a_report_of_labels_names_what_is_there_and_the_command_that_shows_it(filled: Path, cumulant: Any) -> None:
    text = cumulant("labels", "report", "--project", str(filled)).out
    assert "labels: 30 rows, 5 refused (5 no label)" in text
    assert "labels list --state refused" in text
    assert " 0 " not in text.split("labels:")[1]


def test_a_quarantine_without_rows_says_so_and_prints_no_table(project: Path, cumulant: Any) -> None:
    assert cumulant("data", "validate", "--project", str(project)).code == 0
    shown = cumulant("data", "quarantine", "--project", str(project))
    assert shown.out == "nothing in quarantine: none of 400 rows of rows was refused\n"


def test_a_quarantine_that_is_cut_says_of_how_many(project: Path, cumulant: Any) -> None:
    file = project / "cumulant.yaml"
    file.write_text(file.read_text().replace("    rules:\n", "    rules:\n      pages: {max: 3}\n", 1))
    assert cumulant("data", "validate", "--project", str(project)).code == 1
    shown = cumulant("data", "quarantine", "--rows", "2", "--project", str(project)).out
    assert "2 of " in shown
    assert "--rows N or --out FILE for more" in shown


def test_truth_values_are_written_as_the_data_write_them() -> None:
    import polars as pl
    from rich.console import Console

    from cumulant.cli.training.frame_output import show_frame

    console = Console(record=True, width=80)
    show_frame(console, pl.DataFrame({"prediction": [False, True], "score": [0.1, 0.9]}))
    words = console.export_text().split()
    assert ("false" in words, "true" in words, {"yes", "no"} & set(words)) == (True, True, set())
