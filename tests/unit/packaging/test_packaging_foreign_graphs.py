"""ONNX files and scikit-learn models: checked, converted, compared; hostile files are refused."""

from __future__ import annotations

import os
import pickle
import warnings

import joblib
import lightgbm
import numpy as np
import onnx
import pandas as pd
import polars as pl
import pytest
import xgboost
from foreign_models import built, given, network, save_external
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from cumulant.core.errors import CumulantError, DataError, DefinitionError, NotFoundError, ParityError, UsageError
from cumulant.packaging.convert.model_files import read_model
from cumulant.packaging.convert.model_objects import from_object, unpickle
from cumulant.packaging.convert.onnx_files import from_graph, read_graph
from cumulant.packaging.samples import read_sample
from cumulant.packaging.sources import identify
from cumulant.servable.engine import Engine
from cumulant.servable.folder import load_description

MATRIX = np.random.default_rng(0).normal(size=(300, 3))


class Own:
    """A step that nobody else knows."""

    def fit(self, rows, labels=None):
        return self

    def transform(self, rows):
        return rows


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


def test_a_graph_is_taken_as_it_is(tmp_path):
    onnx.save(network(), tmp_path / "net.onnx")
    servable = built(read_graph(tmp_path / "net.onnx"), tmp_path / "out", given(MATRIX, "x"))
    assert [(one.name, one.datatype, one.shape) for one in servable.outputs] == [("p", "FP32", (-1, 2))]
    assert servable.parity.max_difference == 0
    assert servable.example["x"] == MATRIX.astype(np.float32)[0].tolist()
    assert load_description(tmp_path / "out") == servable


def test_a_list_of_maps_becomes_a_tensor(tmp_path):
    onnx.save(network(zipmap=True), tmp_path / "net.onnx")
    foreign = read_graph(tmp_path / "net.onnx")
    servable = built(foreign, tmp_path / "out", given(MATRIX, "x"))
    assert (servable.classes, servable.parity.max_difference) == (("no", "yes"), 0)
    assert servable.outputs[0].shape == (-1, 2)
    assert foreign.notes


def test_an_output_of_one_row_is_freed(tmp_path):
    servable = built(from_graph(network(output_rows=1)), tmp_path / "out")
    assert servable.outputs[0].shape == (-1, 2)


def test_rows_that_are_fixed_are_never_batched(tmp_path):
    servable = built(from_graph(network(rows=4, output_rows=4)), tmp_path / "out")
    assert not servable.batching.exact
    assert "fixed" in servable.batching.reason


def test_a_graph_whose_rows_see_each_other_is_never_batched(tmp_path):
    """Activations scaled by the batch's largest value, as dynamic quantization does."""
    model = network()
    model.graph.node.extend(
        [helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0), helper.make_node("Div", ["p", "top"], ["q"])]
    )
    model.graph.output[0].name = "q"
    servable = built(from_graph(model), tmp_path / "out", given(MATRIX, "x"))
    assert not servable.batching.exact
    assert "q by up to" in servable.batching.reason


def test_without_a_sample_no_agreement_is_claimed(tmp_path):
    servable = built(from_graph(network()), tmp_path / "out")
    assert (servable.parity, servable.example) == (None, {})


def test_external_data_come_along(tmp_path):
    path = save_external(network(), tmp_path / "net.onnx")
    servable = built(read_graph(path), tmp_path / "out", given(MATRIX, "x"))
    assert set(servable.files) == {"model.onnx", "weights.bin"}
    path.unlink()
    (tmp_path / "weights.bin").unlink()
    assert Engine(tmp_path / "out" / "model.onnx").run({"x": MATRIX.astype(np.float32)})[0].shape == (300, 2)


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", "..\\weights.bin", "", "C:weights.bin"]
)
def test_external_data_never_leave_the_folder(tmp_path, location):
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(100))
    path = save_external(network(), folder / "net.onnx", location)
    with pytest.raises(DataError, match="outside its folder"):
        read_graph(path)


def test_nor_by_a_link(tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    path = save_external(network(), folder / "net.onnx")
    secret = tmp_path / "secret"
    (folder / "weights.bin").rename(secret)
    (folder / "weights.bin").symlink_to(secret)
    with pytest.raises(DataError, match="outside its folder"):
        read_graph(path)


def test_nor_from_inside_a_subgraph(tmp_path):
    inner = network()
    save_external(inner, tmp_path / "net.onnx", "../secret")
    outer = network()
    branch = helper.make_node("If", ["c"], ["y"], then_branch=inner.graph, else_branch=inner.graph)
    outer.graph.node.append(branch)
    onnx.save(outer, str(tmp_path / "outer.onnx"))
    with pytest.raises(DataError, match="outside its folder"):
        read_graph(tmp_path / "outer.onnx")


@pytest.mark.parametrize("claim", [{"length": "4000000000"}, {"offset": "99999"}, {"offset": "-5"}, {"length": "x"}])
def test_external_data_are_as_long_as_claimed(tmp_path, claim):
    with pytest.raises(DataError, match="beyond the end"):
        read_graph(save_external(network(), tmp_path / "net.onnx", **claim))


def test_missing_external_data_are_named(tmp_path):
    path = save_external(network(), tmp_path / "net.onnx")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(DataError, match=r"weights\.bin.*missing"):
        read_graph(path)


def test_a_cut_graph_is_refused(tmp_path):
    raw = network().SerializeToString()
    for share in (0.05, 0.3, 0.6, 0.95):
        (tmp_path / "net.onnx").write_bytes(raw[: int(len(raw) * share)])
        with pytest.raises(CumulantError) as caught:
            built(read_model(tmp_path / "net.onnx"), tmp_path / "out")
        assert isinstance(caught.value, UsageError)
        assert not (tmp_path / "out").exists()


def test_weights_that_are_only_claimed_are_refused(tmp_path):
    model = network()
    model.graph.initializer[0].dims[:] = [2**31, 2**31]
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DefinitionError, match="no graph that onnxruntime can run"):
        built(read_model(tmp_path / "net.onnx"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "net.onnx"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello world", "no model"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"GGUF", "GGUF"),
        (b"binf....", "old binary"),
        (b"\x08\x09garbage", "ONNX"),
        (b'{"a": 1}', "no XGBoost"),
        (b'{"learner": 3}', "lacks a part"),
        (b"[" * 100_000, "no model"),
        (b'{"a":' + b"[" * 100_000, "JSON"),
        (b"tree\nversion=v4\n", "cut off"),
    ],
)
def test_files_of_no_accepted_kind(tmp_path, content, words):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_model(path, trust_pickle=True)


def test_places_that_hold_no_model(tmp_path):
    with pytest.raises(NotFoundError):
        identify(tmp_path / "nothing")
    with pytest.raises(DataError, match="neither"):
        identify(tmp_path)


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
@pytest.mark.parametrize("name", ["model.joblib", "model.onnx", "model.json", "model"])
def test_nothing_is_unpickled_without_trust(tmp_path, compress, name):
    """Whatever the file is called, and however it is compressed."""
    mark = tmp_path / "mark"
    joblib.dump(Trap(mark), tmp_path / name, compress=compress)
    assert identify(tmp_path / name) == "pickle"
    with pytest.raises(UsageError, match="pickle"):
        read_model(tmp_path / name)
    assert not mark.exists()


def test_a_name_alone_makes_no_pickle(tmp_path):
    onnx.save(network(), tmp_path / "net.onnx")
    (tmp_path / "net.onnx").rename(tmp_path / "net.pkl")
    assert read_model(tmp_path / "net.pkl").kind == "ONNX"


def test_a_cut_pickle_is_told(tmp_path):
    raw = pickle.dumps(LogisticRegression())
    (tmp_path / "m.pkl").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match="unpickled"):
        unpickle(tmp_path / "m.pkl")


LABELS = np.array(["no", "yes"])[(MATRIX[:, 0] > 0).astype(int)]


@pytest.mark.parametrize(
    ("model", "goal", "names"),
    [
        (LogisticRegression(), LABELS, ["label", "probability"]),
        (LogisticRegression(), np.digitize(MATRIX[:, 0], [-0.5, 0.5]), ["label", "probabilities"]),
        (RandomForestClassifier(5, random_state=0), LABELS, ["label", "probability"]),
        (SVC(), LABELS, ["label"]),
        (LinearRegression(), MATRIX[:, 1], ["prediction"]),
        (LinearRegression(), MATRIX[:, :2], ["prediction"]),
    ],
)
def test_estimators_answer_as_themselves(tmp_path, model, goal, names):
    pipeline = make_pipeline(StandardScaler(), model).fit(MATRIX, goal)
    servable = built(from_object(pipeline), tmp_path / "out", given(MATRIX))
    assert [one.name for one in servable.outputs] == names
    assert servable.parity.flips == 0
    found = Engine(tmp_path / "out" / "model.onnx").run(
        {"input": MATRIX.astype("f8" if servable.inputs[0].datatype == "FP64" else "f4")}
    )
    if names[0] == "label":
        assert found[0].tolist() == pipeline.predict(MATRIX).tolist()
        assert servable.classes == tuple(map(str, pipeline.classes_))


@pytest.mark.parametrize("make", [lightgbm.LGBMClassifier, xgboost.XGBClassifier])
def test_a_pipeline_may_end_in_exact_trees(tmp_path, make):
    quiet = {"verbose": -1} if make is lightgbm.LGBMClassifier else {}
    steps = [SimpleImputer(), StandardScaler()]
    model = make_pipeline(*steps, make(n_estimators=10, n_jobs=1, **quiet)).fit(MATRIX, (MATRIX[:, 0] > 0).astype(int))
    servable = built(from_object(model), tmp_path / "out", given(MATRIX))
    assert [one.name for one in servable.outputs] == ["label", "probability"]
    assert servable.parity.flips == 0
    assert servable.parity.max_difference < 1e-6
    found = Engine(tmp_path / "out" / "model.onnx").run({"input": MATRIX.astype(np.float32)})
    assert np.allclose(found[1], model.predict_proba(MATRIX)[:, 1], atol=1e-6)


def test_names_of_columns_are_kept(tmp_path):
    frame = pd.DataFrame(MATRIX, columns=["a", "b", "c"])
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, LABELS)
    frame.assign(other="x")[["c", "other", "b", "a"]].to_csv(tmp_path / "rows.csv", index=False)
    foreign = from_object(model)
    servable = built(
        foreign, tmp_path / "out", lambda inputs, columns: read_sample(tmp_path / "rows.csv", inputs, columns)
    )
    assert servable.columns == ("a", "b", "c")
    assert servable.parity.flips == 0
    assert servable.example["input"] == pytest.approx(MATRIX[0].tolist())


def test_columns_of_text_are_inputs_of_their_own(tmp_path):
    frame = pd.DataFrame({"a": MATRIX[:, 0], "b": MATRIX[:, 1], "c": np.array(["x", "y", "z"])[np.arange(300) % 3]})
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer([("n", numbers, ["a", "b"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["c"])])
    model = Pipeline([("columns", columns), ("model", LogisticRegression())]).fit(frame, LABELS)
    frame.to_parquet(tmp_path / "rows.parquet")
    servable = built(
        from_object(model, example=pl.read_parquet(tmp_path / "rows.parquet")),
        tmp_path / "out",
        lambda inputs, columns: read_sample(tmp_path / "rows.parquet", inputs, columns),
    )
    assert [(one.name, one.datatype, one.shape) for one in servable.inputs][2] == ("c", "BYTES", (-1, 1))
    assert servable.parity.flips == 0
    assert servable.example["c"] == ["x"]


def test_steps_without_a_form_are_named():
    model = Pipeline(
        [
            ("scale", StandardScaler()),
            ("own", Own()),
            ("log", FunctionTransformer(np.log1p)),
            ("m", LogisticRegression()),
        ]
    )
    with pytest.raises(DefinitionError, match=r"log \(FunctionTransformer\), own \(Own\)"):
        from_object(model)


def test_what_is_no_model_is_refused():
    with pytest.raises(UsageError, match=r"builtins\.dict"):
        from_object({"weights": 1})


def test_an_answer_out_of_tolerance_leaves_nothing(tmp_path):
    foreign = from_graph(network())
    shifted = network(
        weights=numpy_helper.to_array(foreign.model.graph.initializer[0]) + np.array([0, 0.1], np.float32)
    )
    foreign.model.CopyFrom(shifted)
    with pytest.raises(ParityError, match=r"\d+ of 300 decisions change"):
        built(foreign, tmp_path / "out", given(MATRIX, "x"))
    assert list(tmp_path.iterdir()) == []
    assert built(foreign, tmp_path / "out", given(MATRIX, "x"), tolerance=1.0).parity.flips > 0


@pytest.mark.parametrize("shape", [(0, 3), (5, 4), (5,)])
def test_samples_that_do_not_fit(tmp_path, shape):
    np.save(tmp_path / "rows.npy", np.zeros(shape))
    with pytest.raises(DataError):
        built(
            from_graph(network()),
            tmp_path / "out",
            lambda inputs, columns: read_sample(tmp_path / "rows.npy", inputs, columns),
        )


def test_several_inputs_come_from_an_npz(tmp_path):
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("a", "b", "sum")]
    graph = helper.make_graph(nodes, "g", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    np.savez(tmp_path / "rows.npz", a=MATRIX[:, :2], b=MATRIX[:, 1:])
    read = lambda inputs, columns: read_sample(tmp_path / "rows.npz", inputs, columns)  # noqa: E731
    assert built(from_graph(model), tmp_path / "out", read).batching.exact
    np.savez(tmp_path / "rows.npz", a=MATRIX[:, :2])
    with pytest.raises(DataError, match='lacks the input "b"'):
        built(from_graph(model), tmp_path / "out", read)


def test_a_sample_is_never_unpickled(tmp_path):
    mark = tmp_path / "mark"
    np.save(tmp_path / "rows.npy", np.array([Trap(mark)], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "rows.npz", x=np.array([Trap(mark)], dtype=object))
    (tmp_path / "claim.npy").write_bytes(
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 9), }".ljust(117)
        + b"\n"
    )
    for name in ("rows.npy", "rows.npz", "claim.npy"):
        with pytest.raises(DataError):
            read_sample(tmp_path / name, built(from_graph(network()), tmp_path / "out").inputs, ())
    assert not mark.exists()


def test_equal_models_give_equal_folders(tmp_path):
    for name in ("one", "two"):
        with warnings.catch_warnings():
            built(from_object(LinearRegression().fit(MATRIX, MATRIX[:, 0])), tmp_path / name, given(MATRIX))
    first, second = (load_description(tmp_path / name) for name in ("one", "two"))
    assert first == second


def scaled(shape=()):
    """Rows times a single value, and the sum of them all."""
    value = TensorProto.FLOAT
    found = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"]), helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0)],
        "scaled",
        [helper.make_tensor_value_info("x", value, ["n", 2]), helper.make_tensor_value_info("factor", value, shape)],
        [helper.make_tensor_value_info("y", value, ["n", 2]), helper.make_tensor_value_info("total", value, [])],
    )
    return helper.make_model(found, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_a_graph_with_single_values_becomes_a_servable(tmp_path):
    servable = built(from_graph(scaled()), tmp_path / "made-up")
    assert [spec.shape for spec in (*servable.inputs, *servable.outputs)] == [(-1, 2), (), (-1, 2), ()]
    assert not servable.batching.exact
    assert "single value" in servable.batching.reason
    rows = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    sample = lambda inputs, columns: read_sample(tmp_path / "rows.npz", inputs, columns)  # noqa: E731
    for factor in (np.float32(3), np.full(50, 3, np.float32)):  # alone, or as a column of a table
        np.savez(tmp_path / "rows.npz", x=rows, factor=factor)
        servable = built(from_graph(scaled()), tmp_path / "given", sample)
        assert servable.parity.max_difference == 0
        assert servable.example["factor"] == [3.0]
        assert len(servable.example["x"]) == 2
    np.savez(tmp_path / "rows.npz", x=rows, factor=rows[:, 0])
    with pytest.raises(DataError, match=r"has the shape \[50\], the model takes \[\]"):
        built(from_graph(scaled()), tmp_path / "several", sample)


def test_an_input_without_a_shape_is_refused():
    with pytest.raises(DefinitionError, match="the input factor declares no shape"):
        from_graph(scaled(None))
