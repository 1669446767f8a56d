"""The OpenAPI document: true of the paths and rows that there are; a running server conforms to it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import httpx
import jsonschema
import pytest
from serving_graphs import echo, scale
from serving_models import ROW, call, servable
from test_serving_fleet import serving

from cumulant.serving.access.callers import Callers, CallerToken
from cumulant.serving.access.control import AccessControl
from cumulant.serving.app import ServingApplication
from cumulant.serving.endpoints.openapi import document
from cumulant.serving.endpoints.openapi_schemas import row_schema
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.protocol.paths import ROUTES, UNKNOWN, path_template

#: what a request's schema cannot say: which columns a frame needs, which moments the stored history covers
UNSAYABLE = "positive_data_acceptance"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    servable(folder / "rows")
    scale(folder / "matrix", columns=("a", "b", "c"), required=("a",))
    echo(folder / "echo", ("FP32", "BYTES", "INT8", "BOOL"), name="a name/{with} signs")
    return folder


@pytest.fixture(scope="module")
def app(models):
    return ServingApplication(ModelSet(open_model(models / name) for name in ("rows", "matrix", "echo")))


def test_the_document_is_valid_and_names_every_path(app):
    found = call(app, "GET", "/openapi.json").json()
    assert found["openapi"] == "3.1.0"
    assert found == json.loads(json.dumps(document(app)))
    written = {path_template(path.encode()) for path in found["paths"]}
    off = {one.template for one in ROUTES if one.template.startswith("/v2/repository/models")}
    assert written == {one.template for one in ROUTES} - off - {"/invocations", "/v1/events", "/v1/labels"}
    ids = [operation["operationId"] for methods in found["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)
    for schema in found["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_get_path_answers_as_its_schema_says(app):
    found = document(app)
    shared = {"components": found["components"]}
    seen = 0
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            other = "POST" if method == "get" else "GET"
            refused = call(app, other, path)
            assert refused.status_code == 405, path
            assert method.upper() in refused.headers["allow"]
            options = call(app, "OPTIONS", path)
            assert (options.status_code, options.headers["allow"]) == (200, refused.headers["allow"])
            if method == "get":
                answer = call(app, "GET", path)
                assert answer.status_code == 200
                kind = answer.headers["content-type"].partition(";")[0]
                content = operation["responses"]["200"]["content"][kind]
                if kind == "application/json":
                    jsonschema.validate(answer.json(), {**content["schema"], **shared})
                head = call(app, "HEAD", path)
                assert (head.status_code, head.content) == (200, b"")
                seen += 1
    assert seen > 20


def test_rows_are_described_with_types_required_fields_and_an_example(app):
    schema = row_schema(app.models.get("flight-late"))
    assert schema["required"] == ["distance", "sched_dep"]
    assert schema["examples"] == [ROW]
    jsonschema.validate(ROW, schema)
    for wrong in ({}, {**ROW, "distance": "far"}, {**ROW, "more": 1}, {**ROW, "sched_dep": None}):
        assert not jsonschema.Draft202012Validator(schema).is_valid(wrong)
        assert call(app, "POST", "/v1/models/flight-late/predict", wrong).status_code == 400
    matrix = row_schema(app.models.get("graph"))
    assert jsonschema.Draft202012Validator(matrix).is_valid({"a": 1, "b": None})
    for wrong in ({}, {"b": 1}, {"a": None}):
        assert not jsonschema.Draft202012Validator(matrix).is_valid(wrong)
        assert call(app, "POST", "/v1/models/graph/predict", wrong).status_code == 400
    assert not jsonschema.Draft202012Validator(matrix).is_valid({"a": "1"})


def test_the_examples_in_the_document_are_answered(app):
    for path, methods in document(app)["paths"].items():
        for content in methods.get("post", {}).get("requestBody", {}).get("content", {}).values():
            if "example" in content:
                assert call(app, "POST", path, content["example"]).status_code == 200, path


def test_a_token_is_declared_where_one_is_needed(app):
    guarded = document(ServingApplication(app.models, access=AccessControl(Callers([CallerToken("secret")]))))
    assert guarded["paths"]["/v2"]["get"]["security"] == [{"token": []}]
    assert "security" not in guarded["paths"]["/ping"]["get"]
    assert "securitySchemes" not in document(app)["components"]


def test_templates_hide_what_a_caller_wrote():
    assert (
        path_template(b"/v1/models/a%2Fb/versions/3/predict?token=x") == "/v1/models/{model}/versions/{version}/predict"
    )
    assert path_template(b"/v2/models/stats") == "/v2/models/stats"
    assert path_template(b"/v1/models/x/secret/y") == UNKNOWN
    assert path_template(b"/\xff") == UNKNOWN


def test_rows_of_tensors_are_checked(app):
    path = "/v1/models/a%20name%2F%7Bwith%7D%20signs/predict"
    row = {"in_FP32": [1.5], "in_BYTES": ["x"], "in_INT8": [3], "in_BOOL": [True]}
    answer = call(app, "POST", path, row).json()
    assert [answer[name] for name in ("out_FP32", "out_BYTES", "out_INT8", "out_BOOL")] == [[1.5], ["x"], [3], [True]]
    assert call(app, "POST", path, []).status_code == 400
    for name, value in (
        ("in_INT8", [False]),
        ("in_INT8", [1.5]),
        ("in_INT8", [128]),
        ("in_BYTES", [{}]),
        ("in_BOOL", [1]),
    ):
        refused = call(app, "POST", path, {**row, name: value})
        assert (refused.status_code, name in refused.json()["error"]) == (400, True)


@pytest.mark.slow
def test_schemathesis_finds_no_fault(models):
    with serving(models, "--model-control", "explicit") as (_, ready):
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{ready['url']}/openapi.json",
            "--no-color",
            "-n",
            "4",
            "--phases",
            "examples,coverage,fuzzing",
            "--generation-deterministic",
            "--max-examples",
            "2",
            "--exclude-checks",
            UNSAYABLE,
            "--exclude-path-regex",
            "load$",
            "--continue-on-failure",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        generated = re.search(r"(\d+) generated", done.stdout)
        assert generated is not None
        assert int(generated[1]) > 2000
        assert httpx.get(f"{ready['url']}/ping").status_code == 200
        counted = httpx.get(f"{ready['url']}/metrics").text
        assert 'status="200"' in counted
        assert 'status="500"' not in counted
