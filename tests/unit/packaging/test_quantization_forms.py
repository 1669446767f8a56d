"""Forms of a graph, and what they are held to."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from quantization_graphs import KINDS, ids, network, run, save

from cumulant.packaging.batching import measure_batching
from cumulant.packaging.quantize import search
from cumulant.packaging.quantize.choice import ORIGINAL
from cumulant.packaging.quantize.layers import find_layers
from cumulant.packaging.quantize.search import try_forms
from cumulant.servable.engine import Engine


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    model = network(folder)
    return model, try_forms(model, ids(240), accuracy_loss=0.05, folder=folder, budget=0.5)


def test_every_form_is_made_loads_and_answers_as_measured(forms):
    model, found = forms
    assert {one.kind for one in found.trials} == KINDS
    assert {one.kind: one.fault for one in found.trials if one.fault} == {}
    # the rows that were held out, found again: those among the first 240 that were not learned from
    order = np.random.default_rng(0).permutation(240)
    held_out = {"ids": ids(240)["ids"][np.sort(order[60:])]}
    expected = run(model, held_out)[0].tolist()
    for one in found.trials:
        answers = run(found.paths[one.kind], held_out)[0].tolist()
        same = sum(
            max(range(16), key=row.__getitem__) == max(range(16), key=other.__getitem__)
            for row, other in zip(expected, answers, strict=True)
        )
        assert one.agreement == pytest.approx(same / 180, abs=1.01 / 180), one.kind
        assert one.size == found.paths[one.kind].stat().st_size
        assert [pace.rows for pace in one.paces] == [1, 32]
        assert one.agreement > 0.7, one.kind


def test_forms_are_smaller_by_what_their_bits_promise(forms):
    model, found = forms
    sizes = {one.kind: one.size for one in found.trials}
    weights = sum(4 * one.value.size for one in find_layers(onnx.load(model)))
    assert sizes["int8 weights"] - sizes["4-bit weights"] > 0.08 * weights
    assert sizes[ORIGINAL] - sizes["float16 weights"] > 0.45 * weights
    assert sizes["4-bit weights"] < sizes["int8 weights"] < sizes["float16 weights"] < sizes[ORIGINAL]


def test_a_layer_computed_in_int8_is_not_computed_in_float(forms):
    _, found = forms
    operators = [node.op_type for node in onnx.load(found.paths["int8 static"]).graph.node]
    # Conv in and out, MatMul and Gemm in
    assert operators.count("QuantizeLinear") == 4
    # the MatMul's 48 inputs fill no whole number of blocks of 32
    products = [node.op_type for node in onnx.load(found.paths["4-bit products"]).graph.node]
    assert (products.count("MatMulNBits"), products.count("Gemm"), products.count("MatMul")) == (1, 0, 1)


def test_relative_error_holds_where_there_are_no_classes(tmp_path):
    path = network(tmp_path, classes=False)
    found = try_forms(path, ids(80), accuracy_loss=0.05, folder=tmp_path, budget=0.2)
    order = np.random.default_rng(0).permutation(80)
    held_out = {"ids": ids(80)["ids"][np.sort(order[20:])]}
    expected = [float(value) for value in run(path, held_out)[0]]
    answers = [float(value) for value in run(found.paths["int8 weights"], held_out)[0]]
    lost = math.sqrt(sum((a - b) ** 2 for a, b in zip(answers, expected, strict=True)))
    share = 1 - lost / math.sqrt(sum(a * a for a in expected))
    trial = next(one for one in found.trials if one.kind == "int8 weights")
    assert trial.agreement == pytest.approx(share, abs=1e-4)


def test_a_graph_with_a_fixed_number_of_rows_is_run_with_it(tmp_path):
    model = onnx.load(network(tmp_path))
    for one in (*model.graph.input, *model.graph.output):
        one.type.tensor_type.shape.dim[0].dim_value = 4
    path = tmp_path / "fixed.onnx"
    onnx.save(model, path)
    # 202 rows: neither part is a whole number of calls
    found = try_forms(path, ids(202), accuracy_loss=0.1, folder=tmp_path, budget=0.2)
    assert {one.kind for one in found.trials} == KINDS
    assert {one.kind: one.fault for one in found.trials if one.fault} == {}
    assert all([pace.rows for pace in one.paces] == [4] for one in found.trials)
    assert all("takes 4 rows a call" in one.note for one in found.trials)


def test_a_quantizer_that_fails_is_recorded_and_the_others_go_on(tmp_path, monkeypatch):
    def broken(model):
        raise ValueError("an operator that it does not know\nand more")

    monkeypatch.setattr(search.forms, "to_dynamic_int8", broken)  # type: ignore[attr-defined]
    found = try_forms(network(tmp_path), ids(90), accuracy_loss=0.1, folder=tmp_path, budget=0.2)
    faults = {one.kind: one.fault for one in found.trials if one.fault}
    assert faults == {"int8 dynamic": "could not be made: ValueError: an operator that it does not know"}
    assert "int8 dynamic" not in found.paths


def test_neighbours_matter_to_dynamic_activations_only(tmp_path, forms):
    _, found = forms
    assert not measure_batching(Engine(found.paths["int8 dynamic"]), ids(40), 32).exact
    path = save(
        tmp_path,
        "relu",
        [helper.make_node("Relu", ["x"], ["answer"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 3])],
        {},
    )
    verdict = measure_batching(
        Engine(path), {"x": np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)}, 32
    )
    assert verdict.exact
    assert "32 rows" in verdict.reason
    noted = next(one for one in found.trials if one.kind == "int8 dynamic")
    assert "not exact in batches" in noted.note
