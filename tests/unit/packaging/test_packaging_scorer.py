"""Encoding, calibration, decisions, and what a scorer refuses."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging_models import Constant, Own, numbers, plan_for

from cumulant.core.errors import (
    CumulantError,
    DataError,
    IntegrityError,
    NotFoundError,
    ParityError,
    RequestError,
    StorageError,
)
from cumulant.core.servable import Calibration, Input
from cumulant.packaging.builder import build
from cumulant.packaging.parity import ROWS
from cumulant.servable.encoder import Encoder
from cumulant.servable.folder import load_servable, with_version
from cumulant.servable.scorer import Scorer, calibrate
from cumulant.training.payloads.encoding import encode


def constant(tmp_path, *, values=(0.3,), inputs=None, sample=None, **settings):
    inputs = inputs or numbers(1)
    model = Constant(values=values, inputs=inputs, **settings)
    sample = sample or {one.feature: [1.0, None] for one in inputs}
    out = tmp_path / "servable"
    build(model, plan_for(inputs), name="m", sample=sample, out=out, lineage={"run": "r1"}, example={"f0": 1.0})
    return out


def test_numbers_flags_and_categories():
    encoder = Encoder((Input("n", "number"), Input("b", "flag"), Input("c", "category", ("x", "true", "3"))))
    columns = {"n": [1, None, 2.5, 4], "b": [True, None, False, True], "c": ["x", None, True, 3], "other": ["a"]}
    expected = [[1, 1, 0], [math.nan, math.nan, math.nan], [2.5, 0, 1], [4, 1, 2]]
    np.testing.assert_array_equal(encoder.matrix(columns), np.array(expected, np.float32))


def test_arrays_encode_as_lists_do():
    encoder = Encoder((Input("n", "number"), Input("c", "category", ("x", "y"))))
    lists = {"n": [1.5, None], "c": ["y", None]}
    arrays = {"n": np.array([1.5, np.nan]), "c": np.array(["y", None], dtype=object)}
    np.testing.assert_array_equal(encoder.matrix(lists), encoder.matrix(arrays))


def test_large_magnitudes_keep_their_digits_by_centring():
    encoder = Encoder((Input("t", "number", center=1.36e9),))
    assert encoder.matrix({"t": [1.36e9 + 0.25, 1.36e9 + 1]})[:, 0].tolist() == [0.25, 1.0]


def test_what_no_float32_holds_is_missing():
    assert np.isnan(Encoder(numbers(1)).matrix({"f0": [1e39, -math.inf, math.nan]})).all()


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-1000, 1000)), max_size=20))
def test_any_numbers_encode_to_their_nearest_float32(values):
    found = Encoder(numbers(1)).matrix({"f0": values})[:, 0]
    np.testing.assert_array_equal(found, np.array([np.nan if v is None else v for v in values], np.float32))


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(allow_nan=True), st.floats(1.3e9, 1.4e9)),
            st.one_of(st.none(), st.integers(-(2**62), 2**62)),
            st.one_of(st.none(), st.booleans()),
            st.one_of(st.none(), st.sampled_from(["a", "b", "", "A", "nan", "None", "true"])),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_the_server_encodes_as_training_does(rows):
    types = {"f": pl.Float64, "i": pl.Int64, "b": pl.Boolean, "s": pl.String}
    frame = pl.DataFrame(rows, schema=types, orient="row")
    inputs = (
        Input("f", "number", center=1.35e9),
        Input("i", "number"),
        Input("b", "flag"),
        Input("s", "category", ("b", "", "nan", "true")),
    )
    columns = frame.to_dict(as_series=False)
    np.testing.assert_array_equal(Encoder(inputs).matrix(columns), encode(frame, inputs))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"f0": [1.0]}, "f1 is missing"),
        ({"f0": [1.0], "f1": [1.0, 2.0]}, "2 values where 1"),
        ({"f0": ["a"], "f1": [1.0]}, "no number"),
        ({"f0": [{}], "f1": [1.0]}, "no number"),
        ({"f0": [10**400], "f1": [1.0]}, "no number"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns, words):
    with pytest.raises(RequestError, match=words):
        Encoder(numbers(2)).matrix(columns)


def test_calibration_is_platts_sigmoid():
    raw = np.array([0.0, 0.2, 0.5, 0.9, 1.0])
    found = calibrate(raw, Calibration("sigmoid", a=2.0, b=-0.5))
    assert found[1] == pytest.approx(1 / (1 + math.exp(-(2 * math.log(0.25) - 0.5))), abs=1e-15)
    assert np.isfinite(found).all()
    assert np.array_equal(calibrate(raw, Calibration()), raw)


def test_yes_or_no_answers_are_booleans_at_the_threshold(tmp_path):
    out = constant(tmp_path, values=(0.3,), threshold=0.3)
    (answer,) = Scorer(out).answers({"f0": [1.0]}, age=[12.0])
    assert (answer.prediction, answer.probability, answer.state_age) == (True, 0.3, 12.0)
    other = constant(tmp_path, values=(0.3,), threshold=0.31)
    assert Scorer(other).answers({"f0": [1.0]})[0].prediction is False


def test_labels_of_classes(tmp_path):
    out = constant(tmp_path, values=(0.7,), classes=("on time", "late"), threshold=None)
    assert Scorer(out).answers({"f0": [1.0]})[0].prediction == "late"
    out = constant(tmp_path, values=(0.2, 0.5, 0.3), task="multiclass", classes=("a", "b", "c"))
    (answer,) = Scorer(out).answers({"f0": [1.0]})
    assert (answer.prediction, answer.probability) == ("b", 0.5)
    assert answer.probabilities == {"a": 0.2, "b": 0.5, "c": 0.3}
    assert Scorer(out).answers({"f0": []}) == []


def test_the_description_says_all_and_a_version_can_be_named(tmp_path):
    out = constant(tmp_path)
    found = load_servable(out)
    assert (found.lineage, found.example, found.version) == ({"run": "r1"}, {"f0": 1.0}, "")
    assert found.parity is not None
    assert with_version(out, "3").version == load_servable(out).version == "3"
    assert sorted(path.name for path in out.iterdir()) == ["model.onnx", "servable.json"]


def test_a_servable_is_replaced_whole(tmp_path):
    constant(tmp_path, values=(0.3,))
    out = constant(tmp_path, values=(0.6,))
    assert Scorer(out).score({"f0": [1.0]}).tolist() == [0.6]
    assert list(tmp_path.iterdir()) == [out]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        constant(tmp_path / "file")


def test_the_parity_check_needs_rows_and_takes_those_at_the_threshold(tmp_path):
    with pytest.raises(DataError):
        constant(tmp_path, sample={"f0": []})
    # Differs from its graph for one of many rows only: the one nearest to the threshold.
    content = (tmp_path / "c").joinpath("model.onnx")
    build_own(tmp_path / "c", lambda m: m[:, 0].astype(float))
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(0, 0.49, 20 * ROWS), [0.499999]])

    def altered(m):
        found = m[:, 0].astype(float)
        return np.where(m[:, 0] > 0.495, 0.51, found)

    with pytest.raises(ParityError, match="1 of"):
        build_own(tmp_path / "d", altered, values)
    assert content.exists()
    assert not (tmp_path / "d").exists()


def build_own(out, function, values=(0.1, 0.9)):
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["b"])],
        "g",
        [value("a", TensorProto.FLOAT, ["n", 1])],
        [value("b", TensorProto.FLOAT, ["n", 1])],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    model = Own(content=content, inputs=numbers(1), function=function)
    return build(
        model, plan_for(model.inputs), name="m", sample={"f0": np.array(values)}, out=out, lineage={}, example={}
    )


def edited(out, change):
    description = json.loads((out / "servable.json").read_text())
    change(description)
    (out / "servable.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(format="cumulant.servable/9"), "has format"),
        (lambda d: d.pop("inputs"), "not a servable's description"),
        (lambda d: d.update(model="../model.onnx"), "leaves the servable's folder"),
        (lambda d: d.update(model="/etc/passwd"), "leaves the servable's folder"),
        (lambda d: d["files"].update({"../../secret": "0"}), "leaves the servable's folder"),
        (lambda d: d.update(files={}), "no checksum"),
        (lambda d: d["files"].update({"more.bin": "0"}), "cannot be read"),
    ],
)
def test_a_description_that_was_changed_is_refused(tmp_path, change, words):
    out = constant(tmp_path)
    edited(out, change)
    with pytest.raises(IntegrityError, match=words):
        Scorer(out)


def test_an_altered_or_missing_file_is_refused(tmp_path):
    out = constant(tmp_path)
    with (out / "model.onnx").open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(IntegrityError, match="altered"):
        Scorer(out)
    (out / "model.onnx").unlink()
    with pytest.raises(IntegrityError, match="cannot be read"):
        Scorer(out)
    shutil.rmtree(out)
    with pytest.raises(NotFoundError):
        Scorer(out)


def test_a_pickle_in_the_model_s_place_is_not_opened(tmp_path):
    out = constant(tmp_path)

    class Trap:
        def __reduce__(self):
            return (print, ("unpickled",))

    (out / "model.onnx").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(IntegrityError, match="no graph"):
        Scorer(out, verify=False)


def test_a_broken_description_is_refused(tmp_path):
    out = constant(tmp_path)
    for content in (b"", b"{", b"[]", b"\xff", b"[" * 100_000):
        (out / "servable.json").write_bytes(content)
        with pytest.raises(CumulantError):
            load_servable(out)


BLOCKED = "onnx mlflow pandas polars sklearn lightgbm scipy pydantic skl2onnx optuna matplotlib pyarrow yaml rich typer"


def test_a_scorer_needs_numpy_onnxruntime_and_msgspec_only(tmp_path):
    out = constant(tmp_path)
    code = f"""
        import sys

        class Wall:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {BLOCKED.split()!r}:
                    raise ImportError(f"{{name}} is not here")

        sys.meta_path.insert(0, Wall())
        from cumulant.servable.scorer import Scorer
        print(Scorer({str(out)!r}).score({{"f0": [1.0]}}).tolist())
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], check=False, capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.stderr) == ("[0.3]", "")


def test_importing_the_room_loads_no_engine():
    code = "import sys, cumulant.packaging; print([n for n in ('numpy', 'onnxruntime', 'onnx', 'msgspec') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_graph_alone_tells_how_to_use_it(tmp_path):
    """Its columns in order, classes, calibration, threshold and target, for a reader that has onnxruntime only."""
    import onnxruntime

    inputs = (Input("amount", "number"), Input("kind", "category", ("hat", "coat")))
    model = Constant(values=(0.3,), inputs=inputs, threshold=0.4)
    sample = {"amount": [1.0, None], "kind": ["hat", None]}
    out = tmp_path / "m"
    build(model, plan_for(inputs), name="m", sample=sample, out=out, lineage={}, example={}, target="returned")
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    assert (told["cumulant.model"], told["cumulant.task"], told["cumulant.target"]) == ("m", "binary", "returned")
    assert json.loads(told["cumulant.columns"]) == ["amount", "kind"]
    assert json.loads(told["cumulant.inputs"])[1]["categories"] == ["hat", "coat"]
    assert json.loads(told["cumulant.classes"]) == list(load_servable(out).classes)
    assert json.loads(told["cumulant.threshold"]) == 0.4
    assert json.loads(told["cumulant.calibration"])["kind"] == "none"
    assert session.get_inputs()[0].name == "input"
