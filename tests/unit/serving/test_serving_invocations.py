"""`/invocations` in MLflow's formats, and the paths of probes."""

from __future__ import annotations

import pytest
from serving_graphs import echo, scale
from serving_models import ROW, call, servable

from cumulant.core.version import __version__
from cumulant.serving.access.callers import Callers, CallerToken
from cumulant.serving.access.control import AccessControl
from cumulant.serving.app import ServingApplication
from cumulant.serving.models.model import ModelSet, open_model

CSV = {"content-type": "text/csv; charset=utf-8"}


@pytest.fixture(scope="module")
def rows_app(tmp_path_factory):
    return ServingApplication(ModelSet([open_model(servable(tmp_path_factory.mktemp("rows") / "one"))]))


@pytest.fixture(scope="module")
def matrix_app(tmp_path_factory):
    folder = scale(tmp_path_factory.mktemp("matrix") / "one", columns=("a", "b", "c"))
    return ServingApplication(ModelSet([open_model(folder)]))


@pytest.fixture(scope="module")
def tensors_app(tmp_path_factory):
    folder = echo(tmp_path_factory.mktemp("tensors") / "one", ("FP32", "BYTES"))
    return ServingApplication(ModelSet([open_model(folder)]))


@pytest.fixture(scope="module")
def single_app(tmp_path_factory):
    folder = echo(tmp_path_factory.mktemp("single") / "one", ("FP32",))
    return ServingApplication(ModelSet([open_model(folder)]))


def predictions(app, body, path="/invocations", **settings):
    answer = call(app, "POST", path, body, **settings)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def expected(app, rows):
    return call(app, "POST", "/v1/models/flight-late/predict", {"rows": rows}).json()["predictions"]


def test_rows_in_every_format_are_answered_as_plain_rows_are(rows_app):
    rows = [ROW, {**ROW, "distance": 12.5, "carrier": None}]
    want = expected(rows_app, rows)
    columns = {name: [row[name] for row in rows] for name in ROW}
    split = {"columns": list(ROW), "index": [7, 8], "data": [list(row.values()) for row in rows]}
    assert len({str(one) for one in want}) == 2
    for body in (
        {"dataframe_records": rows},
        {"dataframe_split": split},
        {"instances": rows},
        {"inputs": columns},
        {"inputs": rows},
        {"dataframe_records": rows, "params": {}},
    ):
        assert predictions(rows_app, body) == want, body
        assert predictions(rows_app, body, "/v1/models/flight-late/invocations") == want
    text = "distance,sched_dep,carrier,tail,charter\n500,2013-04-01T18:00:00,UA,N1,\n12.5,2013-04-01T18:00:00,,N1,\n"
    assert predictions(rows_app, text.encode(), headers=CSV) == want
    assert predictions(rows_app, ("\ufeff" + text).encode(), headers={"content-type": "text/csv"}) == want


def test_csv_cells_have_the_types_of_their_fields(rows_app):
    text = b'carrier,distance,charter,seats,sched_dep\n"U""A",5e2,True,3,2013-04-01T18:00:00\n'
    row = {"carrier": 'U"A', "distance": 500.0, "charter": True, "seats": 3, "sched_dep": "2013-04-01T18:00:00"}
    assert predictions(rows_app, text, headers=CSV) == expected(rows_app, [row])
    wrong = call(rows_app, "POST", "/invocations", b"distance,sched_dep\n1_000,2013-04-01T18:00:00\n", headers=CSV)
    assert (wrong.status_code, "distance" in wrong.json()["error"]) == (400, True)


def test_a_matrix_takes_frames_by_column_and_tensors_whole(matrix_app):
    want = [{"scaled": [2.0, 4.0, 6.0], "total": 12.0}]
    assert predictions(matrix_app, {"dataframe_split": {"columns": ["c", "a", "b"], "data": [[3, 1, 2]]}}) == want
    assert predictions(matrix_app, {"dataframe_split": {"data": [[1, 2, 3]]}}) == want
    assert predictions(matrix_app, {"dataframe_records": [{"a": 1, "b": 2, "c": 3}]}) == want
    assert predictions(matrix_app, {"instances": [[1, 2, 3]]}) == want
    assert predictions(matrix_app, {"instances": [{"a": 1, "b": 2, "c": 3}]}) == want
    assert predictions(matrix_app, {"inputs": [[1, 2, 3]]}) == {"scaled": [[2.0, 4.0, 6.0]], "total": [12.0]}
    assert predictions(matrix_app, {"inputs": {"x": [[1, 2, 3]]}})["total"] == [12.0]
    assert predictions(matrix_app, {"inputs": {"a": [1], "b": [2], "c": [3]}})["total"] == [12.0]
    assert predictions(matrix_app, b"a,b,c\n1,2,3\n", headers=CSV) == want


def test_several_tensors_by_name(tensors_app):
    given = {"in_FP32": [[0.5, 2.0]], "in_BYTES": [["x", "y"]]}
    want = {"out_FP32": [[0.5, 2.0]], "out_BYTES": [["x", "y"]]}
    assert predictions(tensors_app, {"inputs": given}) == want
    rows = [{name: value[0] for name, value in given.items()}]
    assert predictions(tensors_app, {"instances": rows}) == [{name: value[0] for name, value in want.items()}]
    assert "name the inputs" in refused(tensors_app, {"inputs": [[1]]})


def test_one_output_is_answered_bare(single_app):
    assert predictions(single_app, {"instances": [[1, 2], [3, 4]]}) == [[1.0, 2.0], [3.0, 4.0]]
    assert predictions(single_app, {"inputs": [[1, 2]]}) == [[1.0, 2.0]]


def refused(app, body, status=400, **settings):
    answer = call(app, "POST", "/invocations", body, **settings)
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "expected a JSON object with one of dataframe_split"),
        ({}, "expected exactly one of"),
        ({"dataframe_records": [ROW], "inputs": {}}, "expected exactly one of"),
        ({"dataframe_record": [ROW]}, 'did you mean "dataframe_records"'),
        ({"dataframe_records": {}}, "must be a list of objects"),
        ({"dataframe_records": [ROW], "params": {"k": 1}}, "take no params"),
        ({"dataframe_split": []}, '"columns" and "data"'),
        ({"dataframe_split": {"columns": ["distance"], "data": [[1, 2]]}}, "must be a list of 1 values"),
        ({"dataframe_split": {"columns": ["distance", "distance"], "data": []}}, "given twice"),
        ({"dataframe_split": {"data": [[1]]}}, "must be a list of names"),
        ({"dataframe_split": {"columns": [], "data": [], "rows": []}}, 'no part "rows"'),
        ({"instances": {}}, "must be a list"),
        ({"instances": [[1]]}, "expected an object with the fields"),
        ({"inputs": {"distance": 5}}, "one list a field"),
        ({"inputs": 5}, "one list a field"),
        ({"inputs": {"distance": [5], "carrier": []}}, "different numbers of rows"),
        (b"{", "no valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff", "no utf-8 text"),
    ],
)
def test_wrong_forms_are_refused_with_words(rows_app, body, words):
    assert words in refused(rows_app, body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"instances": [[1, 2, 3], [1, 2]]}, "nested unevenly"),
        ({"instances": [[1, 2, True]]}, "no FP32"),
        ({"instances": [[1, 2]]}, "expected [-1, 3]"),
        ({"instances": [[[[[[[[[[[1]]]]]]]]]]]}, "expected [-1, 3]"),
        ({"inputs": {"y": [[1]]}}, 'no input "y"'),
        ({"inputs": {"x": 4}}, "expected [-1, 3]"),
    ],
)
def test_tensors_that_do_not_fit(matrix_app, body, words):
    assert words in refused(matrix_app, body)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no line of names"),
        (b"a,a\n1,2\n", "twice"),
        (b"distance\n1,2\n", "2 cells"),
        (b'distance\n"1\n', "no valid CSV"),
    ],
)
def test_csv_that_cannot_be_read(rows_app, text, words):
    assert words in refused(rows_app, text, headers=CSV)


def test_content_types(rows_app):
    assert "text/plain" in refused(rows_app, b"x", 415, headers={"content-type": "text/plain"})
    assert "charset" in refused(rows_app, b"{}", 415, headers={"content-type": "application/json; charset=utf-7"})
    latin = {"content-type": "application/json; charset=ISO-8859-1"}
    assert (
        len(
            predictions(
                rows_app,
                '{"dataframe_records": [{"distance": 1, "sched_dep": 0, "carrier": "é"}]}'.encode("latin-1"),
                headers=latin,
            )
        )
        == 1
    )
    assert call(rows_app, "GET", "/invocations").status_code == 405


def test_a_server_of_several_models_asks_for_a_name(tmp_path):
    models = [open_model(scale(tmp_path / name, name=name)) for name in ("one", "two")]
    app = ServingApplication(ModelSet(models))
    assert "one, two at /v1/models/NAME/invocations" in refused(app, {"inputs": [[1, 2, 3]]}, 404)
    assert predictions(app, {"inputs": [[1, 2, 3]]}, "/v1/models/two/invocations")["total"] == [12.0]


def test_a_reloaded_model_answers_at_the_path_without_a_name(tmp_path):
    app = ServingApplication(ModelSet([open_model(scale(tmp_path / "a", 2.0))]))
    assert predictions(app, {"inputs": [[1, 2, 3]]})["total"] == [12.0]
    app.models = ModelSet([open_model(scale(tmp_path / "b", 3.0))])
    assert predictions(app, {"inputs": [[1, 2, 3]]})["total"] == [18.0]


def test_probes_answer_without_a_token(tmp_path):
    app = ServingApplication(
        ModelSet([open_model(scale(tmp_path / "a"))]), access=AccessControl(Callers([CallerToken("secret")]))
    )
    for path in ("/ping", "/health"):
        answer = call(app, "GET", path)
        assert (answer.status_code, answer.text) == (200, "\n")
    assert call(app, "GET", "/version").status_code == 401
    told = call(app, "GET", "/version", headers={"authorization": "Bearer secret"})
    assert (told.text, told.headers["content-type"]) == (__version__, "text/plain; charset=utf-8")
    app.draining = True
    assert call(app, "GET", "/ping").status_code == 503
