"""Models that want more memory than the machine should give: refused, with the memory of the process bounded."""

from __future__ import annotations

import subprocess
import sys

import onnx
import pytest
from onnx import TensorProto, helper

from cumulant.core.system.memory import bounded_memory

MIB = 1 << 20
ONE_GIB = 2**28  # floats
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a limit of addresses")


def save(path, nodes, constants=()):
    graph = helper.make_graph(
        nodes,
        "bomb",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "k"])],
        [helper.make_tensor(name, TensorProto.INT64, [len(values)], values) for name, values in constants],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    assert path.stat().st_size < 10_000


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs, [output], **attributes)


def largest(value):
    return [node("ReduceMax", [value], "most", keepdims=0), node("Add", ["x", "most"], "y")]


def doubled():
    """Thirty times twice as wide."""
    steps = [node("Concat", [f"a{n}", f"a{n}"], f"a{n + 1}", axis=1) for n in range(30)]
    return [node("Identity", ["x"], "a0"), *steps, node("ReduceMax", ["a30"], "y", keepdims=1)]


BOMBS = {
    "constant of shape": ([node("ConstantOfShape", ["s"], "c"), *largest("c")], [("s", [ONE_GIB])]),
    "expand": ([node("Expand", ["x", "s"], "e"), *largest("e")], [("s", [1, ONE_GIB])]),
    "tile": ([node("Tile", ["x", "s"], "e"), *largest("e")], [("s", [1, ONE_GIB])]),
    "doubled": (doubled(), []),
}
#: the same limit as in use, of a machine of 700 MiB
PACKAGE = """
import sys
from pathlib import Path
import onnx, onnxruntime
import cumulant.core.system.memory as memory
memory.machine_memory = lambda: 700 << 20
from cumulant.cli.app import run
code = run(["package", sys.argv[1], "--out", sys.argv[2]])
# ru_maxrss of a new process holds the peak of the process that started it
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(code, int(peak.split()[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_graph_that_wants_too_much_memory_is_refused(tmp_path, bomb):
    save(tmp_path / "bomb.onnx", *BOMBS[bomb])
    done = subprocess.run(
        [sys.executable, "-c", PACKAGE, str(tmp_path / "bomb.onnx"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    code, peak = map(int, done.stdout.split()[-2:])
    assert code == 2, done.stderr
    assert "memory" in done.stderr or "bytes" in done.stderr
    assert peak * 1024 < 800 * MIB
    assert not (tmp_path / "out").exists()


def test_a_bound_ends_with_its_block_and_does_not_stack():
    code = """
import resource
from cumulant.core.system.memory import bounded_memory
limit = lambda: resource.getrlimit(resource.RLIMIT_AS)[0]
before = limit()
with bounded_memory(1 << 30):
    outer = limit()
    with bounded_memory(1 << 20):
        assert limit() == outer
    try:
        bytearray(2 << 30)
    except MemoryError:
        print("refused")
assert limit() == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


def test_a_bound_holds_until_the_last_of_several_threads_leaves_it():
    code = """
import resource, threading
from cumulant.core.system.memory import bounded_memory
limit = lambda: resource.getrlimit(resource.RLIMIT_AS)[0]
before = limit()
inside, leave = threading.Barrier(3), [threading.Event(), threading.Event()]
def hold(number):
    with bounded_memory(1 << 30):
        inside.wait()
        leave[number].wait()
threads = [threading.Thread(target=hold, args=(number,), daemon=True) for number in range(2)]
for one in threads: one.start()
inside.wait()
held = limit()
assert held != before
for one, event in zip(threads, leave):
    assert limit() == held
    event.set()
    one.join()
assert limit() == before
with bounded_memory(1 << 30):
    try:
        with bounded_memory(1 << 30):
            raise ValueError
    except ValueError:
        assert limit() != before
assert limit() == before
print("restored")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "restored\n", done.stderr


def test_a_bound_that_is_not_reached_changes_nothing():
    with bounded_memory():
        assert len(bytearray(MIB)) == MIB
