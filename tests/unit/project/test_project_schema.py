"""The JSON Schema and the reference page say what the loader does."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import jsonschema
import msgspec
import pytest
from msgspec import inspect
from ruamel.yaml import YAML

from cumulant import datasets
from cumulant.core.errors import ProjectFileError
from cumulant.project.file.document import document_of, read_content
from cumulant.project.file.loading import load
from cumulant.project.file.schema import json_schema, schema_text, structs_below
from cumulant.project.file.spec import EnvironmentSpec, ProjectSpec

_REFERENCE = runpy.run_path(str(Path(__file__).resolve().parents[3] / "tools" / "project_reference.py"))
description_of, reference_markdown = _REFERENCE["description_of"], _REFERENCE["reference_markdown"]
INTENT = Path(__file__).resolve().parents[4] / "shared" / "intent"
FILES = [INTENT / "flights", INTENT / "fraud", *(datasets.TEMPLATES / name for name in ("flights", "fraud", "blank"))]


def plain(folder: Path) -> object:
    file = folder / ("cumulant.yaml" if folder.parent == INTENT else "cumulant.yaml.tmpl")
    if folder.parent == INTENT and not file.exists():
        pytest.skip("the folder of intended projects is not on this machine")
    return document_of(read_content(file, "cumulant.yaml"), "cumulant.yaml").plain()


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("folder", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_real_files_fit_the_schema(validator, folder):
    assert [error.message for error in validator.iter_errors(plain(folder))] == []


@pytest.mark.parametrize("name", ["flights", "fraud"])
def test_the_intended_projects_load(name):
    if not INTENT.exists():
        pytest.skip("the folder of intended projects is not on this machine")
    project = load(INTENT / name)
    assert project.name == {"flights": "flight-late", "fraud": "card-fraud"}[name]
    assert project.training().target == {"flights": "arr_delay > 15", "fraud": "TX_FRAUD"}[name]


def test_the_intended_flights_are_read_whole():
    if not INTENT.exists():
        pytest.skip("the folder of intended projects is not on this machine")
    spec = load(INTENT / "flights", environment="prod").spec
    flights = spec.data["flights"]
    assert flights.keys == ("carrier", "flight", "sched_dep")
    assert flights.known_time == {"landed": ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]}
    assert flights.rules["origin"].in_ == ["EWR", "JFK", "LGA"]
    assert spec.evaluation.gate["average_precision"].margin == 0.005
    assert spec.training.cost.false_negative == 5


def test_our_reader_agrees_with_a_yaml_library():
    for folder in FILES[2:]:
        file = folder / "cumulant.yaml.tmpl"
        theirs = YAML(typ="safe", pure=True).load(file)
        ours = document_of(read_content(file, "x"), "x")
        assert json.loads(json.dumps(theirs, default=str)) == ours.plain()


#: (a value, where it goes); each must be refused by the loader and by the schema alike
REFUSED = [
    (5, ("version",)),
    ("x", ("modle",)),
    ("x", ("model", "ownr")),
    (5, ("model", "name")),
    ("a/b", ("model", "name")),
    ("big", ("model", "risk")),
    ({"path": 5}, ("data", "a")),
    ({"pth": "x"}, ("data", "a")),
    ({"path": "x"}, ("data", "a/b")),
    ("1 percent", ("data", "a", "quarantine")),
    ([1], ("data", "a", "rules")),
    ({"in": 5}, ("data", "a", "rules", "c")),
    ("soon", ("training", "time")),
    (0, ("training", "trials")),
    ("5", ("training", "trials")),
    ("many", ("training", "threshold", "alerts")),
    ("forever", ("serving", "log", "keep")),
    ("8 megs", ("serving", "body_limit")),
    ({"by": []}, ("release", "approval")),
    ({"before": "canary"}, ("release", "approval")),
    ("x", ("environments", "prod", "jurnal")),
    (5, ("environments", "prod", "journal")),
    ("ten", ("environments", "prod", "training", "trials")),
    ({"path": 5}, ("environments", "prod", "data", "a")),
    ("bad name", ("environments", "prod", "model", "name")),
]
ACCEPTED = [
    ("no", ("model", "owner")),
    (0.02, ("data", "a", "quarantine")),
    ("2%", ("data", "a", "quarantine")),
    ("1h30m", ("training", "time")),
    (None, ("training", "time")),
    (0.3, ("evaluation", "test")),
    ("60d", ("evaluation", "test")),
    ("30%", ("evaluation", "test")),
    ({"trials": 5}, ("environments", "prod", "training")),
    ({"a": {"quarantine": "2%"}}, ("environments", "prod", "data")),
    ({"approval": {"before": "canary"}}, ("environments", "prod", "release")),
    ("f.py", ("environments", "prod", "features")),
    ({"column": "a", "zone": "UTC"}, ("data", "a", "event_time")),
    ("a", ("data", "a", "event_time")),
    (["a"], ("data", "a", "key")),
]


def content(value: object, path: tuple[str, ...]) -> dict[str, object]:
    found: dict[str, object] = {"version": 1, "training": {"target": "y"}}
    inner = found
    for part in path[:-1]:
        inner = inner.setdefault(part, {})
    inner[path[-1]] = value
    return found


def write(folder: Path, value: object) -> Path:
    (folder / "cumulant.yaml").write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize(("value", "path"), REFUSED)
def test_loader_and_schema_refuse_the_same(tmp_path, validator, value, path):
    made = content(value, path)
    assert not validator.is_valid(made)
    with pytest.raises(ProjectFileError) as caught:
        load(write(tmp_path, made))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(("value", "path"), ACCEPTED)
def test_loader_and_schema_accept_the_same(tmp_path, validator, value, path):
    made = content(value, path)
    assert [error.message for error in validator.iter_errors(made)] == []
    load(write(tmp_path, made))


def test_a_file_alone_need_only_say_its_version(tmp_path, validator):
    assert validator.is_valid({"version": 1})
    assert not validator.is_valid({"model": {"name": "x"}})


def test_the_schema_is_good_for_editors():
    schema = json_schema()
    assert schema["additionalProperties"] is False
    for name, definition in schema["$defs"].items():
        assert definition["additionalProperties"] is False, name
    assert schema["properties"]["version"]["const"] == 1
    assert schema["$defs"]["ModelSpec"]["properties"]["risk"]["enum"] == ["high", "low", "medium"]
    for key, found in schema["properties"].items():
        assert found.get("description"), key
    text = schema_text()
    assert json.loads(text) == schema
    assert text == schema_text()


def test_every_key_is_described():
    missing = [
        f"{name}.{field.encode_name}"
        for name, struct in structs_below(inspect.type_info(ProjectSpec)).items()
        for field in struct.fields
        if not description_of(field.type)
    ]
    assert missing == []


def test_the_reference_has_every_key_with_its_default():
    text = reference_markdown()
    for struct in structs_below(inspect.type_info(ProjectSpec)).values():
        for field in struct.fields:
            assert f"| `{field.encode_name}` |" in text, field
    for line in (
        "| `quarantine` |",
        "| `trials` | a whole number | `30` |",
        "## `training`",
        "### `data.NAME.rules.COLUMN`",
        "`release.approval`",
    ):
        assert line in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {5}


def test_the_whole_resolved_project_is_json(tmp_path):
    made = load(write(tmp_path, {"version": 1, "training": {"target": "y"}}))
    assert msgspec.json.decode(msgspec.json.encode(made.file.resolved(made.endpoints)))


def test_annotations_of_the_project_file_are_evaluated_once():
    """msgspec evaluates postponed ones when it describes a Struct and again when it converts to it."""
    structs = [
        one.cls for spec in (ProjectSpec, EnvironmentSpec) for one in structs_below(inspect.type_info(spec)).values()
    ]
    assert len(structs) > 30
    assert {
        one.__name__ for one in structs for told in vars(one)["__annotations__"].values() if isinstance(told, str)
    } == set()
