"""Typos and wrong values: every one in one go, each with file, line, and what would fit."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cumulant.core.errors import NotFoundError, ProjectFileError, UsageError
from cumulant.core.plan import KnownAt
from cumulant.data.policy import RowShare
from cumulant.project.file.loading import load


def problems(folder, text: str, **options) -> list[tuple[str, int | None, str]]:
    (folder / "cumulant.yaml").write_text(text)
    with pytest.raises(ProjectFileError) as caught:
        load(folder, **options)
    return list(caught.value.problems)


def test_all_problems_come_at_once_in_the_order_of_lines(tmp_path):
    text = """\
version: 1
model:
  name: flight-late
  ownr: ops@example.com
  risk: hihg
data:
  flights:
    pth: data/flights/*.parquet
    key: 5
    quarantine: 1 percent
    rules:
      origin: {in: EWR}
      distance: {minn: 1}
training:
  target: arr_delay > 15
  trials: "30"
  folds: 1
evaluation:
  test: 60 days
  trials: 5
servin:
  log: {keep: 90d}
"""
    found = problems(tmp_path, text)
    assert [(file, line) for file, line, _ in found] == [
        ("cumulant.yaml", line) for line in (4, 5, 8, 9, 10, 12, 13, 16, 17, 19, 20, 21)
    ]
    said = {line: text for _, line, text in found}
    assert said[4] == 'unknown key "ownr" in model; did you mean "owner"?'
    assert said[5].startswith('model.risk may not be "hihg"; did you mean "high"?')
    assert all(value in said[5] for value in ("low", "medium", "high"))
    assert said[8] == 'unknown key "pth" in data.flights; did you mean "path"?'
    assert said[9] == "data.flights.key must be text or a list, not the number 5; put it in quotes"
    assert '"1 percent" is not a share' in said[10]
    assert said[12] == 'data.flights.rules.origin.in must be a list, not "EWR"'
    assert said[13].endswith('did you mean "min"?')
    assert said[16] == 'training.trials must be a whole number, not "30"'
    assert said[17] == "training.folds: must be at least 2, not 1"
    assert said[19].startswith('evaluation.test: "60 days" is neither a duration nor a share')
    assert said[20] == 'unknown key "trials" in evaluation; it belongs under training'
    assert said[21] == 'unknown key "servin"; did you mean "serving"?'


def test_the_message_can_be_read_on_a_terminal(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {risk: big}\nbogus_section: 1\n")
    with pytest.raises(ProjectFileError) as caught:
        load(tmp_path)
    first, *rest = caught.value.message.splitlines()
    assert first == "2 problems in the project file"
    assert rest[0].strip().startswith('cumulant.yaml:2: model.risk may not be "big"; allowed: ')
    assert rest[1].strip().startswith('cumulant.yaml:3: unknown key "bogus_section"; allowed: version, extends, model')
    assert caught.value.as_dict()["problems"][1] == {
        "file": "cumulant.yaml",
        "line": 3,
        "problem": caught.value.problems[1][2],
    }


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", None, "the file is empty"),
        ("# only a comment\n", None, "the file is empty"),
        ("---\n", None, "the file is empty"),
        ("- version: 1\n", 1, "must hold keys and values"),
        ("just text\n", 1, "must hold keys and values"),
        ("model: {name: x}\n", 1, '"version" is missing'),
        ("version: 2\n", 1, "version may not be the number 2; allowed: 1"),
        ("version: '1'\n", 1, "version"),
        ("version: true\n", 1, "version must be one of 1, not true"),
        ("version: 1.0\n", 1, "version must be one of 1"),
        ("version: 1\nmodel: []\n", 2, "model must be a mapping, not a list"),
        ("version: 1\nmodel: x\n", 2, 'model must be a mapping, not "x"'),
        ("version: 1\nmodel: {name: a/b}\n", 2, '"a/b" is not a name'),
        ("version: 1\nmodel: {name: ../x}\n", 2, "is not a name"),
        ("version: 1\nmodel: {name: ''}\n", 2, "is not a name"),
        ("version: 1\nmodel: {name: null}\n", 2, "model.name must be text, not empty"),
        ("version: 1\nmodel: {name: 7}\n", 2, "put it in quotes"),
        ("version: 1\ndata:\n  ../etc: {path: x}\n", 3, '"../etc" is not a name'),
        ("version: 1\ndata:\n  a.b: {path: x}\n", 3, '"a.b" is not a name'),
        (
            "version: 1\ndata:\n  a: {path: x, freshness: 10}\n",
            3,
            "10 has no unit; write a number and a unit: 90s, 15m",
        ),
        ("version: 1\ndata:\n  a: {stream: x, lateness: soon}\n", 3, '"soon" is not a duration'),
        ("version: 1\nlifecycle: {logs: {cool: 30}}\n", 2, "30 has no unit; write a number and a unit: 90s, 15m"),
        ("version: 1\ndata: [a]\n", 2, "data must be a mapping, not a list"),
        ("version: 1\ndata:\n  a: {path: x, separator: ';;'}\n", 3, "takes at most 1 character"),
        ("version: 1\ndata:\n  a: {path: x, event_time: {zone: UTC}}\n", 3, '"column" is missing in data.a.event_time'),
        ("version: 1\ndata:\n  a: {path: x, known_time: {7d: 5}}\n", 3, "data.a.known_time.7d must be text or a list"),
        ("version: 1\ntraining: {}\n", 2, '"target" is missing in training'),
        (
            "version: 1\ntraining: {target: y, source: flihgts}\ndata:\n  flights: {path: x}\n",
            2,
            'did you mean "flights"?',
        ),
        ("version: 1\ntraining: {target: y, since: May}\n", 2, '"May" is not a time'),
        ("version: 1\ntraining: {target: y, time: 90}\n", 2, "must be text (duration), not the number 90"),
        ("version: 1\ntraining: {target: y, time: soon}\n", 2, '"soon" is not a duration'),
        ("version: 1\ntraining: {target: y, rows: many}\n", 2, '"many" is not a count; write a whole number, or 500k'),
        ("version: 1\ntraining: {target: y, rows: -5}\n", 2, '"-5" is not a count'),
        (
            "version: 1\ntraining: {target: y, rows: 2.5}\n",
            2,
            "must be a whole number or text (count), not the number 2.5",
        ),
        ("version: 1\ntraining: {target: y, rows: yes}\n", 2, '"yes" is not a count'),
        ("version: 1\ntraining: {target: y, threshold: {alerts: many}}\n", 2, '"many" is not a rate'),
        ("version: 1\ntraining: {target: y, task: binery}\n", 2, 'did you mean "binary"?'),
        ("version: 1\nevaluation: {test: 3}\n", 2, "neither a duration nor a share"),
        ("version: 1\nserving: {log: {keep: forever}}\n", 2, '"forever" is not a duration'),
        ("version: 1\nserving: {body_limit: 8 megs}\n", 2, "is not a size"),
        ("version: 1\nresources: {memory: 8 gigs}\n", 2, "is not a size"),
        ("version: 1\nenvironments: {small: {resources: {memory: 8}}}\n", 2, "must be text (size)"),
        ("version: 1\nserving: {hosts: [a.example, 'https://b.example']}\n", 2, '"https://b.example" is no host'),
        ("version: 1\nrelease: {approval: some}\n", 2, 'release.approval may not be "some"; allowed: none, a mapping'),
        ("version: 1\nrelease: {approval: {before: canary}}\n", 2, '"by" is missing in release.approval'),
        ("version: 1\nrelease: {approval: {by: []}}\n", 2, "needs at least 1 item"),
        ("version: 1\nmonitoring: {review: {budget: 50 a day}}\n", 2, '"50 a day" is not a rate'),
        ("version: 1\nmonitoring: {retrain: {when: loss_confirmd}}\n", 2, 'did you mean "loss_confirmed"?'),
        ("version: 1\nmonitoring: {retrain: {every: monthly}}\n", 2, '"monthly" is not a duration'),
        ("version: 1\nmonitoring: {retrain: {every: 0d}}\n", 2, "retrain.every may not be 0"),
        ("version: 1\nmonitoring:\n  retrain: {at_most: 0/month}\n", 3, "retrain.at_most may not be 0"),
        ("version: 1\nmonitoring: {retrain: {hold: 0}}\n", 2, "must be at least 1"),
        ("version: 1\nmonitoring: {retrain: {history: {window: 0d}}}\n", 2, "history.window may not be 0"),
        ("version: 1\nmonitoring: {retrain: {history: {halflife: 9d}}}\n", 2, 'did you mean "half_life"?'),
        ("version: 1\nmonitoring: {retrain: {history: 90d}}\n", 2, "must be a mapping"),
        ("version: 1\nenvironments:\n  prod: {jurnal: x}\n", 3, 'did you mean "journal"?'),
        ("version: 1\nenvironments:\n  prod: {training: {trails: 5}}\n", 3, 'did you mean "trials"?'),
        ("version: 1\nenvironments: {prod: 5}\n", 2, "environments.prod must be a mapping"),
        ("version: 1\nversion: 1\n", 2, "is set twice"),
    ],
)
def test_one_mistake(tmp_path, text, line, said):
    [(file, found, problem)] = problems(tmp_path, text)
    assert (file, found) == ("cumulant.yaml", line)
    assert said in problem


@pytest.mark.parametrize("kind", ["str", "bool", "date", "time", "bytes"])
def test_a_number_format_is_for_numbers(tmp_path, kind):
    text = f"version: 1\nmodel: {{name: m}}\ndata:\n  shop:\n    rules:\n      a: {{type: {kind}, number_format: '1.234,5'}}\n"
    [(_, line, said)] = problems(tmp_path, text)
    assert line == 6
    assert f"type is {kind}; write type: float or int" in said
    (tmp_path / "cumulant.yaml").write_text(text.replace(kind, "int"))
    assert load(tmp_path).spec.data["shop"].rules["a"].type == "int"


def test_high_risk_needs_an_approval(tmp_path):
    [problem] = problems(tmp_path, "version: 1\nmodel:\n  risk: high\n")
    assert problem[1] == 3
    assert "release.approval may not be none" in problem[2]
    [problem] = problems(tmp_path, "version: 1\nmodel: {risk: high}\nrelease:\n  key: a\n  approval: none\n")
    assert problem[1] == 5
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {risk: high}\nrelease: {approval: {by: [board]}}\n")
    assert load(tmp_path).spec.release.approval.by == ["board"]


def test_an_environment_cannot_take_the_approval_away(tmp_path):
    text = "version: 1\nmodel: {risk: high}\nrelease: {approval: {by: [board]}}\nenvironments:\n  dev:\n    release:\n      approval: none\n"
    [problem] = problems(tmp_path, text, environment="dev")
    assert problem[1] == 7
    assert load(tmp_path).environment == "local"


def test_empty_sections_are_defaults(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(
        "version: 1\nmodel:\ndata:\nevaluation:\nrelease:\nenvironments:\nserving:\n  log:\n"
    )
    project = load(tmp_path)
    assert project.spec.data == {}
    assert project.spec.evaluation.test == "20%"
    assert project.policies.serving.log.keep == "90d"
    assert project.spec.training is None
    with pytest.raises(UsageError, match="no training section"):
        project.training()


def test_the_smallest_project(tmp_path):
    folder = tmp_path / "My nice Model_2"
    folder.mkdir()
    (folder / "cumulant.yaml").write_text("version: 1\n")
    project = load(folder)
    assert project.name == "my-nice-model-2"
    assert str(project.file.origin("model.name")) == "default (the folder's name)"


@pytest.mark.parametrize(
    ("folder", "name"), [("2013", "model-2013"), ("Ärger", "rger"), ("___", "model"), ("a" * 80, "a" * 63)]
)
def test_a_model_is_named_after_any_folder(tmp_path, folder, name):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "cumulant.yaml").write_text("version: 1\n")
    assert load(tmp_path / folder).name == name


def test_a_folder_without_a_project(tmp_path):
    with pytest.raises(UsageError, match=r"no cumulant\.yaml") as caught:
        load(tmp_path)
    assert "cumulant new" in caught.value.hint
    (tmp_path / "cumulant.yml").write_text("version: 1\n")
    with pytest.raises(UsageError) as caught:
        load(tmp_path)
    assert 'did you mean "cumulant.yml"?' in caught.value.hint
    (tmp_path / "cumulant.yml").unlink()
    (tmp_path / "cumulant.yaml").write_text("version: 1\n")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "deep" / "er")
    assert f"--project {tmp_path}" in caught.value.hint
    with pytest.raises(UsageError, match="there is no folder"):
        load(tmp_path / "nowhere")


def test_the_file_itself_may_be_named(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\n")
    assert load(tmp_path / "cumulant.yaml").root == tmp_path
    assert load(str(tmp_path)).file.path == tmp_path / "cumulant.yaml"


def test_a_place_that_an_environment_does_not_name(tmp_path):
    key, said = "labels", "kept where `log` says"
    lines = f"environments:\n  prod:\n    {key}: s3://acme/{key}\n"
    [(file, line, text)] = problems(tmp_path, f"version: 1\n{lines}", environment="prod")
    assert (file, line) == ("cumulant.yaml", 4)
    assert text.startswith(f'unknown key "{key}" in environments.prod; ')
    assert said in text
    (tmp_path / "shared.yaml").write_text(f"{key}: s3://acme/{key}\n")
    extended = "environments:\n  prod: {extends: shared.yaml}\n"
    [(file, line, text), *_] = problems(tmp_path, f"version: 1\n{extended}", environment="prod")
    assert (file, line) == ("shared.yaml", 1)
    assert said in text


def test_an_unknown_environment(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nenvironments: {prod: {}, staging: {}}\n")
    with pytest.raises(NotFoundError) as caught:
        load(tmp_path, environment="stagin")
    assert caught.value.hint == 'did you mean "staging"?'


def test_numbers_for_floats_and_text_for_text(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(
        "version: 1\nmodel: {purpose: 'on', owner: NO}\ntraining: {target: on, since: 2018-05-01, threshold: 1, time: null}\n"
        "data:\n  tx: {path: x, rules: {a: {in: [0, 1.5, NO, true], min: 2018-01-01}}, quarantine: 0.02}\n"
    )
    spec = load(tmp_path).spec
    assert (spec.model.purpose, spec.model.owner, spec.training.target) == ("on", "NO", "on")
    assert (spec.training.since, spec.training.threshold, spec.training.time) == ("2018-05-01", 1.0, None)
    assert spec.data["tx"].rules["a"].in_ == [0, 1.5, "NO", True]
    assert spec.data["tx"].rules["a"].min == "2018-01-01"
    assert spec.data["tx"].quarantine == 0.02


@pytest.mark.parametrize(
    ("text", "line", "text_of_problem"),
    [
        ("rules:\n      km:\n        mean: {min: 2, max: 1}", 6, "`mean` of km has a min above its max: 2 and 1"),
        ("rules:\n      km:\n        quantiles: {half: {min: 2}}", 6, '`quantiles` of km: "half" is not a share'),
        ("missing_files: 120%", 3, '"120%" is not a share'),
        ("batch: {min_rows: half}", 3, '"half" is no limit on the rows of a batch'),
        ("columns: {town: city}", 3, 'the path of town, "city", names no field'),
        ("known_time: {7d: [a], seen: [a]}", 3, 'column "a" is under known_time twice'),
    ],
)
def test_a_limit_of_a_source_that_can_never_be_evaluated(tmp_path, text, line, text_of_problem):
    [(file, at, problem)] = problems(tmp_path, f"version: 1\ndata:\n  a:\n    path: x.csv\n    {text}\n")
    assert (file, text_of_problem in problem) == ("cumulant.yaml", True), problem
    assert problem.startswith("data.a: ")
    assert at == line, "of the column's rules, else of the source"


def test_sources_are_read_as_numbers_once(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(
        "version: 1\nresources: {memory: 2GiB}\ndata:\n  a:\n    path: x.csv\n    event_time: at\n    keep: 30d\n"
        "    known_time: {7d: [y], seen: [z]}\n    quarantine: 5%\n    table: {fresh: 36h}\n"
        "    batch: {min_rows: 50%, max_rows: 10}\n    rules: {k: {nulls: 0}, n: {nulls: 20%}}\n"
    )
    project = load(tmp_path)
    policy = project.policies.source("a")
    assert (policy.quarantine, policy.missing_files) == (0.05, 0.01)
    assert (policy.fresh, policy.keep) == (timedelta(hours=36), timedelta(days=30))
    assert (policy.min_rows, policy.max_rows) == (RowShare(0.5, "50%"), 10)
    assert (policy.required, policy.nulls) == ({"k"}, {"n": 0.2})
    assert policy.known == {
        "y": KnownAt(delay_us=7 * 86_400_000_000),
        "z": KnownAt(column="seen"),
        "seen": KnownAt(column="seen"),
    }
    assert project.policies.known_delays == [{"y": timedelta(days=7), "z": None}]
    assert project.policies.memory == 2 << 30
    assert project.policies.features == tmp_path / "features.py"
