"""Forms of a graph, what they are held to, and which is chosen."""

from __future__ import annotations

import builtins
import math
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cumulant.core.errors import DataError, DefinitionError, MissingPartError
from cumulant.packaging import quantize
from cumulant.packaging.quantization import ORIGINAL, Pace, Trial, choose, neighbours_matter, search, tried
from cumulant.packaging.quantization.decisions import exact, rows_to_show
from cumulant.packaging.quantization.layers import layers, second_moments
from cumulant.packaging.quantization.lookup import lookups
from cumulant.packaging.quantization.measure import agreement, bound
from cumulant.packaging.quantization.mixed import LADDER, Rounder, first_good, ladder
from cumulant.packaging.quantization.packed import PLANES, packed
from cumulant.packaging.quantization.rounding import group_size, rounded


def save(folder, name, nodes, inputs, outputs, constants, opset=17):
    values = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializer=values)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    return path


def network(folder, *, classes=True, name="net", opset=17):
    """Ids [n, 8] -> table -> convolution -> pool -> MatMul -> Gemm -> 16 classes."""
    rng = np.random.default_rng(3)
    draw = lambda *shape: (rng.normal(size=shape) / math.sqrt(np.prod(shape[1:]))).astype(np.float32)  # noqa: E731
    constants = {
        "table": draw(64, 32) * 6,
        "kernel": draw(48, 32, 3),
        "bias": draw(48, 1)[:, 0],
        "first": draw(48, 64),
        "second": draw(16, 64) * 8,
        "last": draw(16, 1)[:, 0],
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "ids"], ["found"], axis=0),
        node("Transpose", ["found"], ["turned"], perm=[0, 2, 1]),
        node("Conv", ["turned", "kernel", "bias"], ["seen"], pads=[1, 1]),
        node("Relu", ["seen"], ["kept"]),
        node("GlobalMaxPool", ["kept"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("MatMul", ["flat", "first"], ["hidden"]),
        node("Tanh", ["hidden"], ["bent"]),
        node("Gemm", ["bent", "second", "last"], ["scores"], transB=1),
        node("Softmax", ["scores"], ["answer"], axis=1)
        if classes
        else node("ReduceSum", ["scores", "axes"], ["answer"], keepdims=0),
    ]
    if not classes:
        constants["axes"] = np.array([1], np.int64)
    shape = ["n", 16] if classes else ["n"]
    return save(
        folder,
        name,
        nodes,
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 8])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, shape)],
        constants,
        opset,
    )


def ids(rows, seed=0):
    return {"ids": np.random.default_rng(seed).integers(0, 64, size=(rows, 8))}


def run(path, feeds):
    content = path if isinstance(path, bytes) else str(path)
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feeds)


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    model = network(folder)
    return model, tried(model, ids(240), accuracy_loss=0.05, folder=folder, budget=0.5)


KINDS = {
    ORIGINAL,
    "float16 weights",
    "float16",
    "int8 weights",
    "4-bit weights",
    "int8 dynamic",
    "4-bit products",
    "int8 static",
    "int8 static, mixed",
    "int8 static, careful",
    "mixed weights, 70% of the loss spent",
    "mixed weights, 35% of the loss spent",
    "mixed weights, 10% of the loss spent",
}


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
    weights = sum(4 * one.value.size for one in layers(onnx.load(model)))
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


@pytest.mark.parametrize("bits", PLANES)
def test_packed_weights_are_those_of_the_codes(tmp_path, bits):
    path = network(tmp_path)
    model = onnx.load(path)
    found = layers(model)
    assert [one.op for one in found] == ["Gather", "Conv", "MatMul", "Gemm"]
    codes = {one.weight: (one, rounded(one.rows, bits, group_size(one.rows.shape[1], 32))) for one in found}
    answers = run(packed(model, codes).SerializeToString(), ids(50))[0]
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
    codes = rounded(rows, bits, 16)
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
        for codes in (rounded(rows, 4, 32, inputs.T @ inputs), rounded(rows, 4, 32))
    ]
    assert lost[0] < 0.9 * lost[1]


def test_moments_of_a_convolution_are_those_of_its_windows(tmp_path):
    model = onnx.load(network(tmp_path))
    found = [one for one in layers(model) if one.op == "Conv"]
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
    rounder = Rounder(layers(model), {})
    steps = ladder(rounder, dict.fromkeys(rounder.layers, 1.0))
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
    found, replaced = lookups(onnx.load(path))
    assert replaced == 1
    # ids outside the table too: the product has zeros there
    feeds = {"ids": np.random.default_rng(1).integers(-3, 44, size=(30, 5)).astype(np.int32)}
    np.testing.assert_array_equal(run(found.SerializeToString(), feeds)[0], run(path, feeds)[0])


def test_a_product_that_is_not_one_hot_stays(tmp_path):
    assert lookups(onnx.load(network(tmp_path)))[1] == 0


def pace(ratio, noise=0.01, rows=1):
    return Pace(rows, 1e-3 * ratio, ratio, ratio - noise, ratio + noise)


trials = st.lists(
    st.builds(
        lambda size, share, ratio, noise, fault: Trial(
            "form", size, share, () if fault else (pace(ratio, noise), pace(ratio, noise, 32)), fault
        ),
        size=st.integers(1, 200),
        share=st.floats(0, 1),
        ratio=st.floats(0.1, 4),
        noise=st.floats(0, 0.5),
        fault=st.sampled_from(["", "", "", "could not be made"]),
    ),
    max_size=8,
).map(
    lambda found: [
        Trial(ORIGINAL, 100, 1.0, (pace(1, 0), pace(1, 0, 32))),
        *(one._replace(kind=f"form {k}") for k, one in enumerate(found)),
    ]
)


@settings(max_examples=300)
@given(found=trials, loss=st.floats(0, 0.5))
def test_size_takes_the_smallest_within_the_loss(found, loss):
    candidates = choose(found, aim="size", accuracy_loss=loss)
    assert [one.kind for one in candidates] == [one.kind for one in found]
    (chosen,) = [one for one in candidates if one.chosen]
    allowed = [one.size for one in found[1:] if not one.fault and one.agreement >= 1 - loss - 1e-12 and one.size < 100]
    assert chosen.size == min(allowed, default=100)
    assert (chosen.kind == ORIGINAL) == (not allowed)
    assert all(one.reason for one in candidates)


@settings(max_examples=300)
@given(found=trials, loss=st.floats(0, 0.5))
def test_speed_takes_only_what_is_faster_beyond_noise(found, loss):
    (chosen,) = [one for one in choose(found, aim="speed", accuracy_loss=loss) if one.chosen]
    trial = next(one for one in found if one.kind == chosen.kind)
    faster = [
        one.paces[0].ratio
        for one in found[1:]
        if not one.fault and one.agreement >= 1 - loss - 1e-12 and one.paces[0].high < 0.95
    ]
    assert (chosen.kind == ORIGINAL) == (not faster)
    if faster:
        assert trial.paces[0].ratio == pytest.approx(min(faster))


def test_a_form_that_is_slower_at_one_number_of_rows_is_not_faster():
    found = [Trial(ORIGINAL, 100, 1.0, (pace(1, 0),)), Trial("mixed", 50, 1.0, (pace(0.5), pace(1.2, rows=32)))]
    original, other = choose(found, aim="speed", accuracy_loss=0.1)
    assert original.chosen
    assert other.reason == "slower than the original: 0.50 of the time at 1 rows, 1.20 of the time at 32 rows"


def test_the_chosen_graph_is_written_and_answers(tmp_path):
    path, out = network(tmp_path), tmp_path / "out.onnx"
    candidates = quantize(path, ids(240), aim="size", accuracy_loss=0.1, out=out, budget=0.3)
    (chosen,) = [one for one in candidates if one.chosen]
    assert chosen.size == out.stat().st_size < path.stat().st_size / 3
    fresh = ids(400, seed=9)
    assert (run(out, fresh)[0].argmax(axis=1) == run(path, fresh)[0].argmax(axis=1)).mean() > 0.8


def test_nothing_within_the_loss_leaves_the_original(tmp_path):
    path, out = network(tmp_path, classes=False), tmp_path / "out.onnx"
    candidates = quantize(path, ids(1500), aim="size", accuracy_loss=1e-9, out=out, budget=0.3)
    assert [one.kind for one in candidates if one.chosen] == [ORIGINAL]
    assert out.read_bytes() == path.read_bytes()
    assert "no other form serves better" in candidates[0].reason
    # the nearest form fails, and no other is tested
    assert sum("less than the" in one.reason for one in candidates[1:]) == 1
    assert sum(one.reason.startswith("not tested") for one in candidates[1:]) == len(candidates) - 2


def test_relative_error_holds_where_there_are_no_classes(tmp_path):
    path = network(tmp_path, classes=False)
    found = tried(path, ids(80), accuracy_loss=0.05, folder=tmp_path, budget=0.2)
    order = np.random.default_rng(0).permutation(80)
    held_out = {"ids": ids(80)["ids"][np.sort(order[20:])]}
    expected = [float(value) for value in run(path, held_out)[0]]
    answers = [float(value) for value in run(found.paths["int8 weights"], held_out)[0]]
    lost = math.sqrt(sum((a - b) ** 2 for a, b in zip(answers, expected, strict=True)))
    share = 1 - lost / math.sqrt(sum(a * a for a in expected))
    trial = next(one for one in found.trials if one.kind == "int8 weights")
    assert trial.agreement == pytest.approx(share, abs=1e-4)


def test_a_lost_number_is_no_agreement():
    expected = np.array([[0.2, 0.8], [np.nan, 0.4]], np.float32)
    assert agreement([expected], [expected.copy()]) == 1
    found = expected.copy()
    found[0, 1] = np.nan
    assert agreement([expected], [found]) == 0
    assert agreement([expected[:, 0]], [np.array([np.inf, 0], np.float32)]) == 0


def test_the_worst_output_counts_and_labels_are_compared_as_they_are():
    labels, scores = np.array([1, 2, 3, 4]), np.eye(4, dtype=np.float32)
    assert agreement([labels, scores], [np.array([1, 2, 3, 9]), scores]) == 0.75
    assert agreement([labels, scores], [labels, scores[[0, 1, 3, 2]]]) == 0.5


def test_a_sample_too_short_for_the_loss_is_refused(tmp_path):
    path, out = network(tmp_path), tmp_path / "out.onnx"
    with pytest.raises(DataError, match=r"has 300 rows; a loss of 0.01 needs at least 399"):
        quantize(path, ids(300), aim="size", accuracy_loss=0.01, out=out)
    assert not out.exists()
    with pytest.raises(DataError, match="must be above 0"):
        quantize(path, ids(300), aim="size", accuracy_loss=0, out=out)


@pytest.mark.parametrize("rows", [5, 60, 299, 1000])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_the_bound_is_the_share_at_which_as_many_agree_in_one_of_twenty(rows, share):
    """By the sum of the binomial probabilities, which the bound inverts."""
    hits = math.floor(share * rows)
    low = exact(hits, rows)
    more = sum(math.comb(rows, k) * low**k * (1 - low) ** (rows - k) for k in range(hits, rows + 1))
    assert more == pytest.approx(0.05 if hits else 1.0, rel=1e-6)
    high = exact(hits, rows, upper=True)
    fewer = sum(math.comb(rows, k) * high**k * (1 - high) ** (rows - k) for k in range(hits + 1))
    assert fewer == pytest.approx(0.05 if hits < rows else 1.0, rel=1e-6)


@pytest.mark.parametrize("loss", [0.003, 0.01, 0.05, 0.3])
def test_the_fewest_rows_can_show_the_loss_and_one_less_cannot(loss):
    rows = rows_to_show(loss)
    assert exact(rows, rows) >= 1 - loss - 1e-12
    assert exact(rows - 1, rows - 1) < 1 - loss


def test_a_form_at_the_limit_on_few_rows_is_not_taken():
    """99% of 1,000 rows may well be 98.3% of others; 99.7% shows 99%."""
    original = Trial(ORIGINAL, 100, 1.0, (pace(1, 0),))
    edge = Trial("edge", 40, 0.99, (pace(1),), bound=exact(990, 1000), distance=0.02)
    safe = Trial("safe", 50, 0.997, (pace(1),), bound=exact(997, 1000), distance=0.01)
    found = choose([original, edge, safe], aim="size", accuracy_loss=0.01)
    assert [one.kind for one in found if one.chosen] == ["safe"]
    assert "which shows 98.31% with 95% confidence, less than the 99.00% asked for" in found[1].reason


def test_of_several_outputs_the_worst_bound_counts():
    labels, values = np.arange(1000), np.linspace(1, 2, 1000, dtype=np.float32)
    assert bound([values], [values]) == 1
    assert bound([labels, values], [labels, values]) == pytest.approx(exact(1000, 1000))


def test_the_original_may_be_replaced_in_place_or_stay(tmp_path):
    path = network(tmp_path, classes=False)
    before = path.read_bytes()
    quantize(path, ids(1500), aim="size", accuracy_loss=1e-9, out=path, budget=0.1)
    assert path.read_bytes() == before
    quantize(path, ids(240), aim="size", accuracy_loss=0.2, out=path, budget=0.1)
    assert len(path.read_bytes()) < len(before) / 2


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ({"other": np.zeros((90, 8), np.int64)}, "the graph takes ids"),
        ({"ids": np.zeros((90, 8), np.int64), "more": np.zeros(80)}, "one number of rows"),
        ({}, "one number of rows"),
    ],
)
def test_a_sample_of_another_form_is_refused(tmp_path, sample, words):
    with pytest.raises(DataError, match=words):
        quantize(network(tmp_path), sample, aim="size", accuracy_loss=0.1, out=tmp_path / "out.onnx")


@pytest.mark.parametrize("loss", [-0.1, 1.0, math.nan])
def test_a_loss_that_is_no_share_is_refused(tmp_path, loss):
    with pytest.raises(DataError, match="accuracy loss"):
        quantize(network(tmp_path), ids(90), aim="size", accuracy_loss=loss, out=tmp_path / "out.onnx")


def test_a_graph_that_gives_no_number_is_refused(tmp_path):
    path = save(
        tmp_path,
        "nan",
        [helper.make_node("Mul", ["x", "lost"], ["answer"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 2])],
        {"lost": np.array(np.nan, np.float32)},
    )
    with pytest.raises(DataError, match="no finite number"):
        quantize(path, {"x": np.ones((90, 2), np.float32)}, aim="size", accuracy_loss=0.1, out=tmp_path / "out.onnx")


def test_a_tree_ensemble_stays_and_says_why(tmp_path):
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["answer"], domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 0, 0],
        nodes_values=[0.5, 0.0, 0.0], nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[1.0, 2.0],
    )  # fmt: skip
    path = save(
        tmp_path,
        "tree",
        [node],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 1])],
        {},
    )
    sample = {"x": np.random.default_rng(0).random((90, 1)).astype(np.float32)}
    (original,) = quantize(path, sample, aim="size", accuracy_loss=0.1, out=tmp_path / "out.onnx", budget=0.1)
    assert original.chosen
    assert "no layer with large float32 weights among its operators (TreeEnsembleRegressor)" in original.reason
    assert (tmp_path / "out.onnx").read_bytes() == path.read_bytes()


def old_product(folder, *nodes, opset, constants=(), ir_version=9):
    """A product with 64 x 64 weights, as an old exporter writes it, in front of other nodes."""
    weight = numpy_helper.from_array(np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32) / 8, "w")
    last = helper.make_node("MatMul", ["x", "w"], ["hidden" if nodes else "answer"])
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants]
    before = []
    if ir_version < 4:  # where initializers have to be inputs
        given.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [64, 64]))
        initializers.append(weight)
    else:
        before.append(helper.make_node("Constant", [], ["w"], value=weight))
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 64])
    graph = helper.make_graph([*before, last, *nodes], "old", given, [answer], initializer=initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.save(model, folder / "old.onnx")
    return folder / "old.onnx"


@pytest.mark.parametrize(("opset", "ir_version"), [(8, 3), (12, 7), (17, 9)])
def test_old_operator_sets_and_weights_in_nodes_are_made_smaller_too(tmp_path, opset, ir_version):
    softmax = helper.make_node("Softmax", ["hidden"], ["answer"], axis=1)  # means something else from 13 on
    path = old_product(tmp_path, softmax, opset=opset, ir_version=ir_version)
    sample = {"x": np.random.default_rng(0).random((90, 64)).astype(np.float32)}
    before = path.read_bytes()
    found = quantize(path, sample, aim="size", accuracy_loss=0.1, out=tmp_path / "out.onnx", budget=0.1)
    chosen = next(one for one in found if one.chosen)
    assert chosen.kind != ORIGINAL
    assert chosen.agreement >= 0.9
    assert (tmp_path / "out.onnx").stat().st_size < 0.6 * len(before)
    assert path.read_bytes() == before


def test_an_operator_set_that_cannot_be_converted_says_why(tmp_path):
    names = ("scale", "shift", "mean", "var")
    old = helper.make_node("BatchNormalization", ["hidden", *names], ["answer"], spatial=0)
    path = old_product(tmp_path, old, opset=8, constants=[(name, np.ones(64, np.float32)) for name in names])
    sample = {"x": np.random.default_rng(0).random((90, 64)).astype(np.float32)}
    (original,) = quantize(path, sample, aim="speed", accuracy_loss=0.1, out=tmp_path / "out.onnx", budget=0.1)
    assert "onnx cannot convert the graph's 8" in original.reason
    assert "export the model with a newer one" in original.reason


def test_bytes_that_are_no_graph_are_refused(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\xff" * 50)
    with pytest.raises(DefinitionError, match="no ONNX graph"):
        quantize(path, ids(90), aim="size", accuracy_loss=0.1, out=tmp_path / "out.onnx")


def test_weights_in_other_files_are_refused(tmp_path):
    model = onnx.load(network(tmp_path))
    path = tmp_path / "apart.onnx"
    onnx.save(model, path, save_as_external_data=True, location="apart.bin", size_threshold=0)
    with pytest.raises(DefinitionError, match="weights in other files"):
        quantize(path, ids(90), aim="size", accuracy_loss=0.1, out=tmp_path / "out.onnx")


def test_a_graph_with_a_fixed_number_of_rows_is_run_with_it(tmp_path):
    model = onnx.load(network(tmp_path))
    for one in (*model.graph.input, *model.graph.output):
        one.type.tensor_type.shape.dim[0].dim_value = 4
    path = tmp_path / "fixed.onnx"
    onnx.save(model, path)
    # 202 rows: neither part is a whole number of calls
    found = tried(path, ids(202), accuracy_loss=0.1, folder=tmp_path, budget=0.2)
    assert {one.kind for one in found.trials} == KINDS
    assert {one.kind: one.fault for one in found.trials if one.fault} == {}
    assert all([pace.rows for pace in one.paces] == [4] for one in found.trials)
    assert all("takes 4 rows a call" in one.note for one in found.trials)


def test_a_quantizer_that_fails_is_recorded_and_the_others_go_on(tmp_path, monkeypatch):
    def broken(model):
        raise ValueError("an operator that it does not know\nand more")

    monkeypatch.setattr(search.forms, "dynamic_int8", broken)
    found = tried(network(tmp_path), ids(90), accuracy_loss=0.1, folder=tmp_path, budget=0.2)
    faults = {one.kind: one.fault for one in found.trials if one.fault}
    assert faults == {"int8 dynamic": "could not be made: ValueError: an operator that it does not know"}
    assert "int8 dynamic" not in found.paths


def test_neighbours_matter_to_dynamic_activations_only(tmp_path, forms):
    _, found = forms
    assert not neighbours_matter(found.paths["int8 dynamic"], ids(40)).exact
    path = save(
        tmp_path,
        "relu",
        [helper.make_node("Relu", ["x"], ["answer"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 3])],
        {},
    )
    verdict = neighbours_matter(path, {"x": np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)})
    assert verdict.exact
    assert "32 rows" in verdict.reason
    noted = next(one for one in found.trials if one.kind == "int8 dynamic")
    assert "not exact in batches" in noted.note


def test_without_onnx_the_install_line_is_named(tmp_path, monkeypatch):
    path, real = network(tmp_path), builtins.__import__

    def missing(name, *rest, **named):
        if name == "onnx" or name.startswith("onnx."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingPartError) as caught:
        quantize(path, ids(90), aim="size", accuracy_loss=0.1, out=tmp_path / "out.onnx")
    assert caught.value.hint == 'pip install "cumulant[train]"'
