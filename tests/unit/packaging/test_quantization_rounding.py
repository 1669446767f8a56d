"""Weights in few bits: rounding, packing, ladders and lookups."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from quantization_graphs import ids, network, run, save

from cumulant.packaging.quantize.layers import find_layers, second_moments
from cumulant.packaging.quantize.lookup import replace_lookups
from cumulant.packaging.quantize.mixed import LADDER, Rounder, first_good, make_ladder
from cumulant.packaging.quantize.packed import PLANES, pack_weights
from cumulant.packaging.quantize.rounding import group_size, round_weights


@pytest.mark.parametrize("bits", PLANES)
def test_packed_weights_are_those_of_the_codes(tmp_path, bits):
    path = network(tmp_path)
    model = onnx.load(path)
    found = find_layers(model)
    assert [one.op for one in found] == ["Gather", "Conv", "MatMul", "Gemm"]
    codes = {one.weight: (one, round_weights(one.rows, bits, group_size(one.rows.shape[1], 32))) for one in found}
    answers = run(pack_weights(model, codes).SerializeToString(), ids(50))[0]
    for one in model.graph.initializer:
        value = numpy_helper.to_array(one)
        if one.name in codes:
            layer, held = codes[one.name]
            value = (held.weights.T if layer.transposed else held.weights).reshape(value.shape)
        elif one.name in ("bias", "last"):
            continue  # below 64 values: kept
        one.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), one.name))
    np.testing.assert_allclose(answers, run(model.SerializeToString(), ids(50))[0], rtol=1e-4, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**20), bits=st.sampled_from(sorted(PLANES)), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_codes_fit_their_bits_and_err_by_half_a_step_at_most_unless_clipped(seed, bits, scale):
    rows = np.random.default_rng(seed).normal(size=(6, 32)) * scale
    codes = round_weights(rows, bits, 16)
    top = 2 ** (bits - 1)
    assert codes.values.min() >= -top
    assert codes.values.max() <= top - 1
    step = np.repeat(codes.scales.astype(float), 16, axis=1)
    inside = (codes.values > -top) & (codes.values < top - 1)
    assert (np.abs(codes.weights - rows)[inside] <= step[inside] * 0.5001).all()


def test_rounding_by_the_inputs_seen_errs_less_on_such_inputs():
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(2000, 64)) @ rng.normal(size=(64, 64))
    rows = rng.normal(size=(32, 64))
    fresh = rng.permutation(inputs)[:500]
    lost = [
        np.linalg.norm(fresh @ (codes.weights - rows).T)
        for codes in (round_weights(rows, 4, 32, inputs.T @ inputs), round_weights(rows, 4, 32))
    ]
    assert lost[0] < 0.9 * lost[1]


def test_moments_of_a_convolution_are_those_of_its_windows(tmp_path):
    model = onnx.load(network(tmp_path))
    found = [one for one in find_layers(model) if one.op == "Conv"]
    sample = ids(7)
    total = second_moments(model, found, sample)["kernel"]
    table = numpy_helper.to_array(next(one for one in model.graph.initializer if one.name == "table"))
    expected = np.zeros((96, 96))
    for row in sample["ids"]:
        padded = np.pad(table[row].T.astype(float), [(0, 0), (1, 1)])
        for at in range(8):
            window = padded[:, at : at + 3].reshape(-1)
            expected += np.outer(window, window)
    np.testing.assert_allclose(total, expected, rtol=1e-9, atol=1e-9)


def test_a_ladder_rises_one_layer_at_a_time_and_ends_at_the_finest(tmp_path):
    model = onnx.load(network(tmp_path))
    rounder = Rounder(find_layers(model), {})
    steps = make_ladder(rounder, dict.fromkeys(rounder.layers, 1.0))
    assert set(steps[0].plan.values()) == {LADDER[0]}
    assert set(steps[-1].plan.values()) == {LADDER[-1]}
    for one, other in pairwise(steps):
        raised = [weight for weight in one.plan if one.plan[weight] != other.plan[weight]]
        assert len(raised) == 1


@given(count=st.integers(1, 40), first=st.integers(0, 50))
def test_the_first_good_step_is_found(count, first):
    assert first_good(count, lambda k: k >= first) == min(first, count - 1)


def one_hot(folder, table):
    node = helper.make_node
    nodes = [
        node("Reshape", ["ids", "deep"], ["spread"]),
        node("Equal", ["spread", "classes"], ["same"]),
        node("Cast", ["same"], ["hot"], to=TensorProto.FLOAT),
        node("MatMul", ["hot", "table"], ["answer"]),
    ]
    constants = {
        "deep": np.array([-1, 5, 1], np.int64),
        "classes": np.arange(len(table), dtype=np.int32).reshape(1, 1, -1),
        "table": table,
    }
    return save(
        folder,
        "hot",
        nodes,
        [helper.make_tensor_value_info("ids", TensorProto.INT32, ["n", 5])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 5, table.shape[1]])],
        constants,
    )


def test_a_one_hot_product_becomes_a_lookup_with_the_same_numbers(tmp_path):
    path = one_hot(tmp_path, np.random.default_rng(0).normal(size=(40, 32)).astype(np.float32))
    found, replaced = replace_lookups(onnx.load(path))
    assert replaced == 1
    # ids outside the table too: the product has zeros there
    feeds = {"ids": np.random.default_rng(1).integers(-3, 44, size=(30, 5)).astype(np.int32)}
    np.testing.assert_array_equal(run(found.SerializeToString(), feeds)[0], run(path, feeds)[0])


def test_a_product_that_is_not_one_hot_stays(tmp_path):
    assert replace_lookups(onnx.load(network(tmp_path)))[1] == 0
