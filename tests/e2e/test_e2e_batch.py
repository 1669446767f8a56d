"""`cumulant predict --output`: killed at any moment, with little memory, on a project with windows and on a folder."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import e2e_shop
import numpy as np
import polars as pl
import pytest
from e2e_support import kill, opened, run, start

from cumulant.core.servable import Batching, GraphServable
from cumulant.flows.serving.predict import predict
from cumulant.flows.serving.serve import prepare_service, run_server
from cumulant.servable.engine import Engine
from cumulant.servable.folder import new_folder, write_sealed

pytestmark = pytest.mark.slow

KILLS = 4
WIDTH = 12


def network(folder, size):
    """A product of matrices that costs some time a row, of twelve columns."""
    from onnx import TensorProto, helper

    draw = np.random.default_rng(3)

    def weights(name, rows, columns):
        values = (draw.normal(size=rows * columns) / rows).tolist()
        return helper.make_tensor(name, TensorProto.FLOAT, [rows, columns], values)

    nodes = [
        helper.make_node("MatMul", ["input", "w0"], ["h0"]),
        helper.make_node("MatMul", ["h0", "w1"], ["h1"]),
        helper.make_node("MatMul", ["h1", "w2"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 1])],
        [weights("w0", WIDTH, size), weights("w1", size, size), weights("w2", size, 1)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with new_folder(folder) as draft:
        (draft / "model.onnx").write_bytes(model.SerializeToString())
        engine = Engine(draft / "model.onnx")
        names = tuple(f"c{number}" for number in range(WIDTH))
        write_sealed(
            draft,
            GraphServable(
                name="network",
                inputs=engine.inputs,
                outputs=engine.outputs,
                columns=names,
                batching=Batching(exact=True),
            ),
        )
    return folder


def write_rows(path, count, *, group=5000):
    draw = np.random.default_rng(1)
    columns = {f"c{number}": draw.normal(size=count).astype("f4") for number in range(WIDTH)}
    pl.DataFrame({"id": np.arange(count)} | columns).write_parquet(path, row_group_size=group)
    return path


def words(model, given, out, *more):
    return ("predict", str(model), "--input", str(given), "--output", str(out), "--keep", "id", *more)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_killed_at_random_moments_the_end_is_the_same(tmp_path, suffix):
    model = network(tmp_path / "model", 500)
    given = write_rows(tmp_path / "in.parquet", 60_000)
    small = ("--part-rows", "1500")
    begun = time.monotonic()
    whole = run(tmp_path, *words(model, given, tmp_path / f"whole.{suffix}", *small))
    seconds = time.monotonic() - begun
    out, chance, killed, reused = tmp_path / f"out.{suffix}", random.Random(suffix), 0, 0
    folder = tmp_path / f"out.{suffix}.parts"
    turn, unfinished = 0, False
    while turn < KILLS or not unfinished:  # one more where the last was whole: what it had not yet removed is no part
        process = start(tmp_path, *words(model, given, out, *small))
        before = len(list(folder.glob("part-*")))
        deadline = time.monotonic() + 60
        while process.poll() is None and len(list(folder.glob("part-*"))) <= before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, seconds / 10))
        kill(process)
        killed += process.returncode == -signal.SIGKILL
        assert out.exists() or process.returncode != 0, turn
        unfinished = not out.exists() and any(folder.glob("part-*"))
        if out.exists():  # whole, also where the process was killed after it
            assert out.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes(), turn
            out.unlink()
        turn += 1
    assert killed
    parts = len(list(folder.glob("part-*")))
    found = run(tmp_path, *words(model, given, out, *small))
    reused = found["reused_parts"]
    assert reused == parts > 0
    assert found["rows"] == whole["rows"] == 60_000
    assert out.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert not folder.exists()


PEAK = """\
import json, resource, sys
from cumulant.cli.app import run
code = run(sys.argv[1:])
print(json.dumps({"code": code, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}), file=sys.stderr)
"""


def peak(*arguments):
    """Most memory of a command, in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "2"},
    )
    told = json.loads(done.stderr.splitlines()[-1])
    assert told["code"] == 0, done.stderr
    return told["peak"] / 1024


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_memory_does_not_grow_with_the_file(tmp_path, suffix):
    """Ten times the rows: at most 60 MiB more, where the rows themselves are 96 MB, and a csv of them 230 MB."""
    model = network(tmp_path / "model", 4)
    small, large = (write_rows(tmp_path / f"{count}.parquet", count) for count in (200_000, 2_000_000))
    if suffix == "csv":
        for path in (small, large):
            pl.scan_parquet(path).sink_csv(path.with_suffix(".csv"))
        small, large = small.with_suffix(".csv"), large.with_suffix(".csv")
    more = ("--part-rows", "20000")
    few = peak(*words(model, small, tmp_path / "few.parquet", *more))
    many = peak(*words(model, large, tmp_path / "many.parquet", *more))
    assert pl.scan_parquet(tmp_path / "many.parquet").select(pl.len()).collect().item() == 2_000_000
    assert many - few < 60, (few, many)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = e2e_shop.make(tmp_path_factory.mktemp("shop"))
    run(folder, "train", "--quick", "--trials", "1")
    return folder


def test_windows_are_answered_as_in_memory_and_by_the_server(shop, tmp_path):
    """Rows after the history, in parts that cut through a customer's orders.

    As many as one request takes: a server counts the rows that it has answered in the windows of later requests.
    """
    with opened(shop) as project:
        who = project.principal()
        later = e2e_shop.orders(500, seed=5).with_columns(pl.col("ordered") + pl.duration(days=1))
        fresh = later.drop("returned").with_columns(order=pl.col("order") + 1_000_000)
        fresh.write_parquet(tmp_path / "in.parquet")
        memory = predict(project, "returns", tmp_path / "in.parquet", principal=who)
        found = run(
            shop,
            "predict",
            "--input",
            str(tmp_path / "in.parquet"),
            "--output",
            str(tmp_path / "out.parquet"),
            "--part-rows",
            "64",
        )
        written = pl.read_parquet(tmp_path / "out.parquet")
        assert found["rows"] == written.height == 500
        assert found["parts"] == 8
        assert written["order"].to_list() == fresh["order"].to_list()
        assert written.select(memory.columns).equals(memory)
        with run_server(prepare_service(project, "returns", principal=who)) as server:
            served = predict(project, "returns", tmp_path / "in.parquet", principal=who, url=server.url)
        assert served["probability"].to_list() == written["probability"].to_list()


def test_a_text_file_is_answered_as_in_memory(shop, tmp_path):
    with opened(shop) as project:
        rows = e2e_shop.orders(500, seed=6).drop("returned").with_columns(pl.col("ordered").dt.to_string("iso:strict"))
        rows.write_csv(tmp_path / "in.csv")
        memory = predict(project, "returns", tmp_path / "in.csv", principal=project.principal())
    run(shop, "predict", str(tmp_path / "in.csv"), "--out", str(tmp_path / "out.parquet"), "--part-rows", "50")
    written = pl.read_parquet(tmp_path / "out.parquet")
    assert written.select(memory.columns).equals(memory)


def test_a_wrong_value_is_named_by_its_row_in_the_file(shop, tmp_path):
    rows = e2e_shop.orders(500, seed=6).drop("returned").with_columns(pl.col("amount").cast(pl.String))
    rows = rows.with_columns(amount=pl.when(pl.col("order") == 400).then(pl.lit("much")).otherwise("amount"))
    rows.write_parquet(tmp_path / "in.parquet")
    process = start(
        shop, "predict", str(tmp_path / "in.parquet"), "--out", str(tmp_path / "out.parquet"), "--part-rows", "50"
    )
    told = "".join(process.communicate(timeout=120))
    assert process.returncode == 2
    assert "must be a number, and is not in row 401" in told
    assert len(list((tmp_path / "out.parquet.parts").glob("part-*"))) == 8


def test_a_full_disk_is_said_and_the_parts_are_kept(tmp_path):
    """A limit on the size of files stands for the disk: the whole file does not fit, the parts do."""
    model = network(tmp_path / "model", 4)
    given, out = write_rows(tmp_path / "in.parquet", 40_000), tmp_path / "out.csv"
    line = [sys.executable, "-m", "cumulant.cli", *words(model, given, out, "--part-rows", "4000"), "--json"]

    def little():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = subprocess.run(
        line,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=little,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    told = done.stdout + done.stderr
    assert done.returncode == 4, told
    assert "out.csv cannot be written: File too large" in told
    assert "finished parts are kept" in told
    assert not out.exists()
    found = run(tmp_path, *words(model, given, out, "--part-rows", "4000"))
    assert (found["reused_parts"], found["rows"]) == (10, 40_000)
