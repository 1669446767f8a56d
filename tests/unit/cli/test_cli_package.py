"""`cumulant package`: files of several kinds, without a project; what fails leaves nothing."""

from __future__ import annotations

import json

import joblib
import lightgbm
import msgspec
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cumulant.servable.folder import load_description

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(400, 3))
GOAL = (MATRIX[:, 0] > 0).astype(int)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder without a project, with a LightGBM model, a joblib and rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    data = lightgbm.Dataset(MATRIX, GOAL, feature_name=["a", "b", "c"])
    lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, 5).save_model("late.txt")
    joblib.dump(LogisticRegression().fit(MATRIX, GOAL), "model.joblib")
    np.savetxt("rows.csv", MATRIX, delimiter=",", header="a,b,c", comments="")
    return tmp_path


def test_a_table_for_people(place, cumulant):
    done = cumulant("package", "late.txt", "--out", "served/late", "--sample", "rows.csv")
    assert done.code == 0
    assert "late: a servable in served/late" in done.out
    assert "probability  FP64 [n]" in done.out
    assert "400 rows, differences up to" in done.out
    assert "exact: 256 rows alone and in batches" in done.out
    assert done.out.rstrip().endswith("next: cumulant serve served/late")


def test_a_document_for_programs(place, cumulant):
    done = cumulant("package", "late.txt", "--out", "out", "--name", "risk", "--sample", "rows.csv", "--json")
    found = done.document
    assert (found["name"], found["kind"], found["folder"]) == ("risk", "LightGBM", "out")
    assert found["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 3]}]
    assert found["columns"] == ["a", "b", "c"]
    assert found["parity"]["flips"] == 0
    assert found["batching"]["exact"]
    assert len(found["lineage"]["source.sha256"]) == 64
    assert json.loads((place / "out" / "servable.json").read_text())["name"] == "risk"


def test_without_a_sample_it_is_said(place, cumulant):
    done = cumulant("package", "late.txt", "--out", "out")
    assert "not compared: no sample was given" in done.out
    assert "made-up rows" in done.out
    assert load_description(place / "out").parity is None


def test_a_pickle_needs_trust(place, cumulant):
    done = cumulant("package", "model.joblib", "--out", "out", "--sample", "rows.csv")
    assert done.code == 2
    assert "--trust-pickle" in done.err
    assert not (place / "out").exists()
    done = cumulant("package", "model.joblib", "--out", "out", "--sample", "rows.csv", "--trust-pickle", "--json")
    assert done.document["classes"] == ["0", "1"]
    assert [one.name for one in (place / "out").iterdir() if one.suffix in (".pkl", ".joblib")] == []


def test_a_servable_is_copied_under_another_name(place, cumulant):
    cumulant("package", "late.txt", "--out", "one")
    done = cumulant("package", "one", "--out", "two", "--name", "other", "--json")
    assert done.document["name"] == "other"
    assert load_description("one").files == load_description("two").files
    assert cumulant("package", "one", "--out", "one").code == 2


def test_an_altered_servable_is_refused(place, cumulant):
    cumulant("package", "late.txt", "--out", "one")
    (place / "one" / "model.onnx").write_bytes(b"other")
    done = cumulant("package", "one", "--out", "two")
    assert done.code == 1
    assert "was altered" in done.err


def test_another_s_files_are_never_replaced(place, cumulant):
    (place / "papers").mkdir()
    (place / "papers" / "thesis.txt").write_text("x")
    done = cumulant("package", "late.txt", "--out", "papers")
    assert done.code == 2
    assert (place / "papers" / "thesis.txt").read_text() == "x"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing.onnx", "--out", "out"), "no model file"),
        (("rows.csv", "--out", "out"), "no model that can be packaged"),
        (("late.txt", "--out", "out", "--name", "../late"), "cannot be the name"),
        (("late.txt", "--out", "out", "--sample", "late.txt"), "names no format"),
        (("late.txt", "--out", "out", "--sample", "no.csv"), "no sample"),
        (("models:/late@champion", "--out", "out"), "MLFLOW_TRACKING_URI"),
    ],
)
def test_what_cannot_be_packaged(place, cumulant, words, said):
    done = cumulant("package", *words)
    assert done.code == 2
    assert said in done.err
    assert not (place / "out").exists()


def test_a_tolerance_that_is_not_met_fails(place, cumulant):
    """Nothing is left, not even a draft."""
    done = cumulant(
        "package", "model.joblib", "--out", "out", "--sample", "rows.csv", "--trust-pickle", "--tolerance", "0"
    )
    assert done.code == 1
    assert "tolerance" in done.err
    assert not [one for one in place.iterdir() if "out" in one.name]


@pytest.fixture
def network(place):
    """A network of one product with 8 classes, and rows for it."""
    from onnx import TensorProto, helper, numpy_helper, save

    weight = np.random.default_rng(2).normal(size=(256, 8)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 256])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 8])],
        initializer=[numpy_helper.from_array(weight, "w")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "net.onnx")
    np.save("rows.npy", np.random.default_rng(3).normal(size=(300, 256)).astype(np.float32))
    return place


def test_a_smaller_form_is_taken_and_the_table_says_why(network, cumulant):
    words = ("package", "net.onnx", "--out", "out", "--sample", "rows.npy", "--quantize", "size")
    found = cumulant(*words, "--accuracy-loss", "10%", "--json").document
    (chosen,) = [one for one in found["candidates"] if one["chosen"]]
    assert chosen["size"] == (network / "out" / "model.onnx").stat().st_size
    assert chosen["size"] < (network / "net.onnx").stat().st_size / 2
    assert all(one["reason"] for one in found["candidates"])
    assert load_description(network / "out").candidates[0].kind == "original"
    done = cumulant(*words, "--accuracy-loss", "10%")
    assert done.code == 0
    assert "forms tried" in done.out
    assert f"* {chosen['kind'][:8]}" in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sample", "rows.npy", "--quantize", "size", "--accuracy-loss", "1%"), "needs at least 399"),
        (("--sample", "rows.npy", "--quantize", "size", "--accuracy-loss", "much"), "is not a share"),
        (("--quantize", "speed"), "--quantize speed needs a sample"),
    ],
)
def test_what_cannot_be_quantized_leaves_nothing(network, cumulant, words, said):
    done = cumulant("package", "net.onnx", "--out", "out", *words)
    assert done.code == 2
    assert said in done.err
    assert not [one for one in network.iterdir() if "out" in one.name]


def test_a_folder_that_is_not_there_is_said_rather_than_a_project_that_is_missing(place, cumulant):
    done = cumulant("serve", "served/nosuch")
    assert done.code == 2
    assert "there is no folder served/nosuch" in done.err


@pytest.mark.parametrize(
    "words", [("serve", "fores"), ("predict", "fores", "--input", "x"), ("predict", "x", "--model", "fores")]
)
def test_a_name_that_is_none_is_said_with_the_nearest_folder(place, cumulant, words):
    (place / "forest").mkdir(exist_ok=True)
    done = cumulant(*words)
    assert done.code == 2
    assert 'there is no folder or model "fores"' in done.err
    assert 'did you mean "forest"?' in done.err
    assert "cumulant.yaml" not in done.err


def test_an_error_of_the_server_that_does_not_start_keeps_its_own_advice(place, cumulant):
    (place / "empty").mkdir(exist_ok=True)
    done = cumulant("serve", "empty", "--port", "0")
    assert done.code == 2
    assert "empty holds no servable" in done.err
    assert "cumulant doctor" not in done.err


def test_the_parity_of_a_smaller_form_is_said_to_be_of_the_one_before():
    from cumulant.core.servable import FormResult, GraphServable, Parity
    from cumulant.flows.packaging.package_summary import graph_rows

    def said(*forms: FormResult) -> str:
        parity = Parity(rows=400, max_difference=0.0, flips=0, tolerance=1e-4)
        servable = GraphServable(name="net", inputs=(), outputs=(), parity=parity, candidates=forms)
        return str(dict(graph_rows(servable))["parity"])

    original = FormResult(kind="original", size=9, seconds=1.0, agreement=1.0)
    smaller = FormResult(kind="int8 weights", size=3, seconds=1.0, agreement=0.9755, chosen=True)
    assert said(original, smaller).endswith("int8 weights, put in place since, agrees with it on 97.55%")
    assert said(msgspec.structs.replace(original, chosen=True)) == said()


def test_a_folder_without_an_output_is_told_what_is_missing(place, cumulant):
    assert cumulant("package", "late.txt", "--out", "served/late").code == 0
    ended = cumulant("predict", "served/late", "--input", "rows.csv")
    assert ended.code == 2
    assert "add --output FILE" in ended.err
