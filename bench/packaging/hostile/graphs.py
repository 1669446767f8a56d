"""Malicious and broken ONNX graphs."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from hostile.case import Case, content

FLOAT = TensorProto.FLOAT
NAMES = (
    "\x1b[31mred\x1b[0m",
    "a\0b",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "a\nb\rc",
    "",
    "\u202e\u2066",
    "x" * 100_000,
)


def network(x: str = "x", p: str = "p") -> Any:
    """A small sound graph: one float32 matrix [n, 3] times weights, then softmax."""
    weights = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)
    nodes = [helper.make_node("MatMul", [x, "w"], ["s"]), helper.make_node("Softmax", ["s"], [p], axis=1)]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(x, FLOAT, ["n", 3])],
        [helper.make_tensor_value_info(p, FLOAT, ["n", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def saved(model: Any, folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def _changed(change: Callable[[Any], None]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        model = network()
        change(model)
        return saved(model, folder)

    return write


def _nodes(*nodes: Any, constants: tuple[Any, ...] = (), opset: int = 17, shape: tuple[Any, ...] = ("n", "k")) -> Any:
    """A graph of these nodes from `x` [n, 3] to `y`."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", FLOAT, list(shape))],
        list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def _integers(name: str, *values: int) -> Any:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


def _external(location: str, *, link: str = "", size: int = 24, **entries: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        inside = folder / "inside"
        inside.mkdir()
        (folder / "secret.bin").write_bytes(bytes(size))
        (inside / "weights.bin").write_bytes(bytes(size))
        if link:
            (inside / "link.bin").symlink_to(link)
        if link == "fifo":
            (inside / "link.bin").unlink()
            os.mkfifo(inside / "link.bin")
        model = network()
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": "0", "length": "24", **entries}.items():
            tensor.external_data.add(key=key, value=value)
        return saved(model, inside)

    return write


def _externals() -> Iterator[Case]:
    places = (
        "/etc/passwd",
        "../secret.bin",
        "a/../../secret.bin",
        "..\\secret.bin",
        "C:\\secret.bin",
        "file:///etc/passwd",
        "",
        ".",
        "model.onnx",
        "servable.json",
        "missing.bin",
        "a\0b",
        "x" * 5000,
        "\x1b[31m",
        "weights.bin/",
        "weights.bin/x",
        "/proc/self/environ",
        "/dev/zero",
    )
    for place in places:
        yield Case(f"external data: {place[:30]!r}", _external(place))
    for link in ("../secret.bin", "/etc/passwd", "/dev/zero", "/proc/self/mem", "link.bin", "fifo"):
        yield Case(f"external data: link to {link}", _external("link.bin", link=link))
    for key, value in (
        ("offset", "9" * 18),
        ("offset", "-5"),
        ("offset", "1e3"),
        ("offset", "9" * 5000),
        ("length", "9" * 18),
        ("length", "-1"),
        ("length", "x"),
        ("offset", "1"),
        ("length", "0x18"),
    ):
        yield Case(f"external data: {key} {value[:20]}", _external("weights.bin", **{key: value}))
    yield Case("external data: too short for its shape", _external("weights.bin", length="8"))


def _tensor(change: Callable[[Any], None]) -> Callable[[Path], Path]:
    return _changed(lambda model: change(model.graph.initializer[0]))


def _tensors() -> Iterator[Case]:
    for dims in (
        [-3, 2],
        [3, -2],
        [2**63 - 1, 2],
        [2**31, 2**31, 2],
        [2**40],
        [0, 2],
        [],
        [3, 3],
        [1] * 10_000,
        [3, 2, 2**62],
    ):
        yield Case(f"initializer: dims {str(dims)[:30]}", _tensor(lambda t, d=dims: t.dims.__setitem__(slice(None), d)))
    for size in (0, 1, 23, 25, 4096):
        yield Case(f"initializer: {size} bytes for 24", _tensor(lambda t, s=size: setattr(t, "raw_data", bytes(s))))
    for kind in (0, 8, 16, 99, -1):
        yield Case(f"initializer: type {kind}", _tensor(lambda t, k=kind: setattr(t, "data_type", k)))

    def strings(model: Any) -> None:
        model.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.STRING, [3, 2], [b"\xff"] * 6))

    def sparse(indices: list[int], dims: list[int]) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            del model.graph.initializer[:]
            values = helper.make_tensor("w", FLOAT, [len(indices)], [1.0] * len(indices))
            model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, _integers("i", *indices), dims))

        return change

    yield Case("initializer: text", _changed(strings))
    for indices, dims in (
        ([2**62], [3, 2]),
        ([-1], [3, 2]),
        ([5, 1], [3, 2]),
        ([0], [2**31, 2**31]),
        ([0], [-3, 2]),
        ([1, 1], [3, 2]),
        ([0], [2**20, 2**14]),
    ):
        yield Case(
            f"sparse initializer: {indices} of {dims}", _changed(sparse(indices, dims)), mutated=0 < max(indices) < 6
        )


def _structures() -> Iterator[Case]:
    def cycle(model: Any) -> None:
        model.graph.node[0].input[0] = "p"

    def twice(model: Any) -> None:
        model.graph.node.append(model.graph.node[1])

    def recursion(model: Any) -> None:
        for name, other in (("F", "G"), ("G", "F")):
            node = helper.make_node(other, ["a"], ["b"], domain="f")
            model.functions.append(helper.make_function("f", name, ["a"], ["b"], [node], [helper.make_opsetid("f", 1)]))
        _call(model, "F")

    def itself(model: Any) -> None:
        node = helper.make_node("F", ["a"], ["b"], domain="f")
        model.functions.append(helper.make_function("f", "F", ["a"], ["b"], [node], [helper.make_opsetid("f", 1)]))
        _call(model, "F")

    def laughs(model: Any) -> None:
        opsets = [helper.make_opsetid("f", 1), helper.make_opsetid("", 17)]
        model.functions.append(
            helper.make_function("f", "F0", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], opsets)
        )
        for n in range(1, 24):
            inner = [
                helper.make_node(f"F{n - 1}", ["a"], ["c"], domain="f"),
                helper.make_node(f"F{n - 1}", ["c"], ["b"], domain="f"),
            ]
            model.functions.append(helper.make_function("f", f"F{n}", ["a"], ["b"], inner, opsets))
        _call(model, "F23")

    def outputs(count: int) -> Callable[[Any], None]:
        return lambda model: model.graph.output.extend([model.graph.output[0]] * count)

    yield Case("graph: cycle", _changed(cycle))
    yield Case("graph: two nodes make one output", _changed(twice))
    yield Case("graph: node makes its own input", _changed(lambda m: m.graph.node[1].input.__setitem__(0, "p")))
    yield Case("graph: input that nobody makes", _changed(lambda m: m.graph.node[0].input.__setitem__(0, "none")))
    yield Case("graph: no output", _changed(lambda m: m.graph.ClearField("output")))
    yield Case("graph: no operators", _changed(lambda m: m.graph.ClearField("node")))
    yield Case("graph: no graph", _changed(lambda m: m.ClearField("graph")))
    yield Case("graph: the same output three times", _changed(outputs(2)))
    yield Case("graph: the same input twice", _changed(lambda m: m.graph.input.append(m.graph.input[0])))
    yield Case("graph: output that nobody makes", _changed(lambda m: setattr(m.graph.output[0], "name", "none")))
    yield Case(
        "graph: output type text", _changed(lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", 8))
    )
    yield Case("graph: input type 99", _changed(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99)))
    yield Case("graph: input without type", _changed(lambda m: m.graph.input[0].ClearField("type")))
    yield Case("graph: functions call each other", _changed(recursion))
    yield Case("graph: function calls itself", _changed(itself))
    yield Case("graph: 2^23 calls of functions", _changed(laughs), mutated=True)
    yield content("graph: 200 graphs inside graphs", b"\x08\x09" + _nested(200), file="model.onnx")
    yield Case("graph: 30 graphs inside graphs", _changed(lambda m: _deep(m, 30)))
    for value in (-3, 0, 2**62, 2**31, 2**63 - 1):
        yield Case(
            f"graph: input of width {value}",
            _changed(lambda m, v=value: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", v)),
        )
        yield Case(
            f"graph: output of width {value}",
            _changed(lambda m, v=value: setattr(m.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", v)),
            mutated=True,
        )
    for rows in (-1, 2**40):
        yield Case(
            f"graph: {rows} rows",
            _changed(lambda m, v=rows: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", v)),
            mutated=rows < 0,
        )


def _call(model: Any, function: str) -> None:
    model.opset_import.append(helper.make_opsetid("f", 1))
    model.graph.node[0].output[0] = "t"
    model.graph.node.insert(1, helper.make_node(function, ["t"], ["s"], domain="f"))


def _deep(model: Any, depth: int) -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["none"], ["o"])], "b", [], [helper.make_tensor_value_info("o", FLOAT, [])]
    )
    for _ in range(depth):
        node = helper.make_node("Scan", ["c"], ["o"], body=branch)
        branch = helper.make_graph([node], "b", [], [helper.make_tensor_value_info("o", FLOAT, [])])
    model.graph.node.append(helper.make_node("Scan", ["x"], ["z"], body=branch))


def _headers() -> Iterator[Case]:
    for version in (0, -1, 999, 2**63 - 1):
        yield Case(
            f"header: operator set {version}",
            _changed(lambda m, v=version: setattr(m.opset_import[0], "version", v)),
            mutated=True,
        )
        yield Case(
            f"header: IR version {version}", _changed(lambda m, v=version: setattr(m, "ir_version", v)), mutated=True
        )
    yield Case("header: no operator set", _changed(lambda m: m.ClearField("opset_import")))
    yield Case(
        "header: operator set twice",
        _changed(lambda m: m.opset_import.append(helper.make_opsetid("", 7))),
        mutated=True,
    )
    for domain, kind in (
        ("com.evil", "Run"),
        ("ai.onnx.contrib", "PyOp"),
        ("", "System"),
        ("com.microsoft", "Nothing"),
        ("org.pytorch.aten", "ATen"),
        ("ai.onnx.training", "Gradient"),
    ):
        yield Case(
            f"operator {domain}:{kind}",
            _changed(
                lambda m, d=domain, k=kind: (
                    setattr(m.graph.node[0], "domain", d),
                    setattr(m.graph.node[0], "op_type", k),
                    m.opset_import.append(helper.make_opsetid(d, 1)),
                )
            ),
        )
    yield Case(
        "header: training info", _changed(lambda m: m.training_info.add().algorithm.CopyFrom(m.graph)), mutated=True
    )
    yield Case(
        "header: 16 MiB of metadata",
        _changed(lambda m: m.metadata_props.add(key="a" * 100, value="b" * (16 << 20))),
        mutated=True,
    )
    yield Case(
        "header: 100,000 metadata",
        _changed(lambda m: [m.metadata_props.add(key=str(n), value="") for n in range(100_000)]),
        mutated=True,
    )
    for name in NAMES:
        yield Case(f"names: {name[:25]!r}", lambda folder, n=name: saved(network(n, n + "2"), folder), mutated=True)
    for name in NAMES:
        yield Case(
            f"dimension name: {name[:25]!r}",
            _changed(lambda m, n=name: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_param", n)),
            mutated=True,
        )


def _loop(steps: int) -> Any:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["v", "v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", FLOAT, None),
        ],
        [helper.make_tensor_value_info("c2", TensorProto.BOOL, []), helper.make_tensor_value_info("v2", FLOAT, None)],
    )
    constants = (
        helper.make_tensor("m", TensorProto.INT64, [], [steps]),
        helper.make_tensor("t", TensorProto.BOOL, [], [True]),
    )
    return _nodes(helper.make_node("Loop", ["m", "t", "x"], ["y"], body=body), constants=constants)


def _behaviours() -> Iterator[Case]:
    node = helper.make_node
    bombs = {
        "ConstantOfShape": _nodes(
            node("ConstantOfShape", ["s"], ["c"]),
            node("ReduceMax", ["c"], ["r"], keepdims=0),
            node("Add", ["x", "r"], ["y"]),
            constants=(_integers("s", 2**33),),
        ),
        "Expand": _nodes(
            node("Expand", ["x", "s"], ["y"]), constants=(_integers("s", 2**31, 1, 3),), shape=("a", "n", 3)
        ),
        "Tile": _nodes(node("Tile", ["x", "s"], ["y"]), constants=(_integers("s", 1, 2**31),)),
        "Pad": _nodes(node("Pad", ["x", "s"], ["y"]), constants=(_integers("s", 0, 0, 0, 2**32),)),
        "Resize": _nodes(
            node("Reshape", ["x", "r"], ["q"]),
            node("Resize", ["q", "", "f"], ["y"]),
            constants=(_integers("r", 1, 1, -1, 3), helper.make_tensor("f", FLOAT, [4], [1, 1, 1e5, 1e5])),
            shape=(1, 1, "a", "b"),
        ),
        "Range": _nodes(
            node("Range", ["a", "b", "c"], ["y"]),
            constants=tuple(helper.make_tensor(k, FLOAT, [], [v]) for k, v in (("a", 0), ("b", 1e10), ("c", 1))),
            shape=("k",),
        ),
        "OneHot": _nodes(
            node("Cast", ["x"], ["i"], to=7),
            node("OneHot", ["i", "d", "v"], ["y"]),
            constants=(_integers("d", 2**32), helper.make_tensor("v", FLOAT, [2], [0, 1])),
            shape=("n", 3, "k"),
        ),
        "Gather out of range": _nodes(node("Gather", ["x", "i"], ["y"], axis=1), constants=(_integers("i", 2**40),)),
        "Reshape that does not fit": _nodes(node("Reshape", ["x", "s"], ["y"]), constants=(_integers("s", 7, -1),)),
        "Loop without an end": _loop(2**62),
        "convolution of 2^40": _nodes(
            node("Reshape", ["x", "r"], ["q"]),
            node("MaxPool", ["q"], ["y"], kernel_shape=[2**40, 2**40]),
            constants=(_integers("r", 1, 1, -1, 3),),
            shape=(1, 1, "a", "b"),
        ),
    }
    for name, model in bombs.items():
        yield Case(f"run: {name}", lambda folder, m=model: saved(m, folder))
    answers = {
        "NaN": _nodes(node("Sub", ["x", "x"], ["z"]), node("Div", ["z", "z"], ["y"])),
        "infinite": _nodes(node("Sub", ["x", "x"], ["z"]), node("Reciprocal", ["z"], ["y"])),
        "random": _nodes(node("RandomNormalLike", ["x"], ["y"])),
        "one row for all": _nodes(node("ReduceMax", ["x"], ["y"], axes=[0], keepdims=1)),
        "twice the rows": _nodes(node("Concat", ["x", "x"], ["y"], axis=0)),
        "no rows": _nodes(node("Slice", ["x", "a", "a"], ["y"]), constants=(_integers("a", 0),)),
        "a sequence": _nodes(node("SequenceConstruct", ["x"], ["y"])),
        "text": _nodes(node("Cast", ["x"], ["y"], to=8)),
        "whole numbers, declared as float": _nodes(node("Cast", ["x"], ["y"], to=7)),
        "another width than declared": _nodes(node("Concat", ["x", "x"], ["y"], axis=1), shape=("n", 3)),
        "rows that see each other": _nodes(
            node("CumSum", ["x", "a"], ["y"]), constants=(helper.make_tensor("a", TensorProto.INT64, [], [0]),)
        ),
    }
    for name, model in answers.items():
        yield Case(f"answers: {name}", lambda folder, m=model: saved(m, folder), mutated=True)


def _damaged() -> Iterator[Case]:
    raw, chance = network().SerializeToString(), random.Random(14)
    for number in range(12):
        size = 1 + (len(raw) - 2) * number // 11
        yield content(f"ONNX cut at {size} of {len(raw)} bytes", raw[:size], file="model.onnx", mutated=True)
    for number in range(30):
        found = bytearray(raw)
        for _ in range(chance.choice((1, 1, 4, 16))):
            found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
        yield content(f"ONNX with bits changed, {number}", bytes(found), file="model.onnx", mutated=True)
    yield content("ONNX: length of 2^63", b"\x08\x09\x3a" + b"\xff" * 9 + b"\x01", file="model.onnx")
    yield content("ONNX: 100,000 groups inside groups", b"\x08\x09" + b"\x3b" * 100_000, file="model.onnx")
    yield content("ONNX: 5,000 graphs inside graphs", b"\x08\x09" + _nested(5000), file="model.onnx")
    yield content("ONNX: 8 MiB of unknown fields", b"\x08\x09" + b"\xf8\x01\x01" * (8 << 20), file="model.onnx")


def _nested(depth: int) -> bytes:
    raw = b""
    for _ in range(depth):
        for tag in (b"\x0a", b"\x2a", b"\x32"):  # node, attribute, graph
            size, length = len(raw), b""
            while size > 127:
                length, size = length + bytes([size & 127 | 128]), size >> 7
            raw = tag + length + bytes([size]) + raw
    size, length = len(raw), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return b"\x3a" + length + bytes([size]) + raw


def cases() -> Iterator[Case]:
    yield from _externals()
    yield from _tensors()
    yield from _structures()
    yield from _headers()
    yield from _behaviours()
    yield from _damaged()
