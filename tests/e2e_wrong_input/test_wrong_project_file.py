"""Mistakes in the project file and on the command line."""

from __future__ import annotations

import pytest
from wrong_input_support import PROJECT, refused, write

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("training:", "trainning:", 8, 'unknown key "trainning"; did you mean "training"?'),
        ("    key: id", "    keey: id", 5, 'unknown key "keey" in data.rows; did you mean "key"?'),
        ("{min: 0}", "{minn: 0}", 7, 'unknown key "minn" in data.rows.rules.amount; did you mean "min"?'),
        ("  trials: 1", "  trial: 1", 10, 'did you mean "trials"?'),
        ("version: 1", "version: 1\ntrials: 3", 2, "it belongs under training"),
        ("trials: 1", "trials: many", 10, "training.trials must be a whole number"),
        ("trials: 1", "trials: [1]", 10, "training.trials must be a whole number, not a list"),
        ("trials: 1", "trials: -1", 10, "must be at least 1, not -1"),
        ("target: late", "target: 1", 9, "put it in quotes"),
        (
            "    key: id",
            "    format: cvs",
            5,
            'did you mean "csv"? allowed: auto, avro, csv, excel, jsonl, orc, parquet',
        ),
        ("  trials: 1", "  task: binry", 10, 'did you mean "binary"?'),
        ("  trials: 1", "  trainers: [naive, lightgmb]", 10, 'did you mean "lightgbm"?'),
        ("  trials: 1", "  source: rowz", 10, 'did you mean "rows"?'),
        ("  trials: 1", "  time: 2 fortnights", 10, "90s, 15m, 2h, 30d, 4w"),
        ("    key: id", "    quarantine: 150%", 5, "write 5% or a number from 0 to 1"),
        ("  trials: 1", "  trials: 1\nevaluation: {gate: {log_loss: {}}}", 11, "exactly one of min and max"),
        ("  trials: 1", "  trials: 1\n  trials: 2", 11, "is set twice; the first time in line 10"),
        ("  trials: 1", "\ttrials: 1", 10, "indent with spaces, not tabs"),
        ("{min: 0}", "{min: 0", 7, "not valid YAML in column 15"),
        ("version: 1\n", "", 1, '"version" is missing'),
        ("version: 1", "version: 2", 1, "allowed: 1"),
        ("../orders.csv", "'${secert:X}'", 4, "a secret is written ${secret:NAME}"),
        ("version: 1", "extends: base.yaml\nversion: 1", 1, "the file does not exist"),
    ],
)
def test_a_mistake_in_the_project_file_has_a_line_and_an_advice(cumulant, project, old, new, line, said):
    write(project, old, new)
    refused(cumulant("plan", "--project", project), 2, f"cumulant.yaml:{line}: ", said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty; a project file starts with `version: 1`"),
        (b"# nothing yet\n", "the file is empty"),
        (b"- 1\n", "must hold keys and values"),
        (b"version: 1 # caf\xe9\n", "not UTF-8"),
        (b"version: 1\0\n", "control character"),
    ],
)
def test_a_file_that_is_no_project_file(cumulant, project, content, said):
    (project / "cumulant.yaml").write_bytes(content)
    refused(cumulant("plan", "--project", project), 2, said)


def test_every_mistake_is_told_at_once(cumulant, project):
    write(project, "    key: id", "    keey: id", text=PROJECT.replace("trials: 1", "trials: many"))
    ended = cumulant("plan", "--project", project)
    refused(ended, 2, "2 problems", 'did you mean "key"?', "whole number")
    assert ended.err.count("keey") == 1
    document = cumulant("plan", "--project", project, "--json").document["error"]
    assert [(one["file"], one["line"]) for one in document["problems"]] == [("cumulant.yaml", 5), ("cumulant.yaml", 10)]


def test_outside_a_project(cumulant, here):
    for words in (("train",), ("plan",), ("data", "validate"), ("models", "list")):
        refused(cumulant(*words), 2, "there is no cumulant.yaml", "cumulant new NAME")
    refused(cumulant("plan", "--project", "nowhere"), 2, "there is no folder nowhere")
    (here / "cumulant.yml").write_text(PROJECT)
    refused(cumulant("plan"), 2, 'did you mean "cumulant.yml"?')


def test_a_project_in_a_folder_below_is_named(cumulant, project):
    refused(cumulant("train"), 2, "there is no cumulant.yaml", "there is one in shop: add --project shop")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", "--env", "prd"), 'did you mean "prod"?'),
        (("data", "validate", "rowz"), 'did you mean "rows"?'),
        (("data", "show", "rowz"), 'did you mean "rows"?'),
        (("data", "show", "rows"), "cumulant data validate rows"),
        (("data", "infer", "ordrs.csv"), 'did you mean "orders.csv"?'),
        (("trian",), 'did you mean "train"?'),
        (("train", "--quik"), 'did you mean "--quick"?'),
        (("train", "--trials", "0"), "is not in the range"),
        (("train", "--time", "soon"), "90s, 15m, 2h"),
        (("runs", "show", "x"), 'no run named "x"'),
        *((("train", "--as-of", text), "write 2013-04-01") for text in ("garbage", "", "2024-13-01", "01/02/2024")),
    ],
)
def test_words_on_the_command_line(cumulant, project, words, said):
    write(project, "training:", "environments: {prod: {}}\ntraining:")
    refused(cumulant(*words, *(() if words[0] == "trian" else ("--project", project))), 2, said)
