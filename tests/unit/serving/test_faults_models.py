"""Models that nobody should load: each is refused in words, and whatever was served before goes on."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import threading
import time

import onnx
import pytest
from google.protobuf.json_format import ParseDict
from onnx import TensorProto, helper
from serving_graphs import scale

from cumulant.core.errors import CumulantError, EngineUnavailableError, IntegrityError, UsageError
from cumulant.core.ids import file_digest
from cumulant.serving.grpc.messages import message_class
from cumulant.serving.grpc.service import _config
from cumulant.serving.models.control import Control, SingleWorker, WorkerDuties
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.models.repository import Repository
from cumulant.serving.settings import Settings
from cumulant.serving.workers.channel import Channel
from cumulant.serving.workers.load_check import LoadCheck
from cumulant.serving.workers.worker import Worker


def resealed(folder, **changes):
    """The folder, with its description made to fit an altered file."""
    path = folder / "servable.json"
    described = json.loads(path.read_bytes())
    described["files"]["model.onnx"] = file_digest(folder / "model.onnx")
    path.write_text(json.dumps(described | changes))
    return folder


def loaded(root):
    worker = Worker(Settings(folders=(str(root),)))
    worker.close()
    return worker


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_graph_is_refused_in_words(tmp_path, seed):
    chance = random.Random(seed)
    folder = scale(tmp_path / "graph")
    content = bytearray((folder / "model.onnx").read_bytes())
    if seed % 3 == 0:
        del content[chance.randrange(len(content)) :]
    for _ in range(1 + seed):
        if content:
            content[chance.randrange(len(content))] = chance.randrange(256)
    (folder / "model.onnx").write_bytes(content)
    try:
        loaded(resealed(folder))
    except CumulantError as error:
        assert error.message  # noqa: PT017 - some damage does no harm


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'"' + b"x" * 5_000_000,
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"format": {}}',
        b'{"format": "\\ud800"}',
        b'{"format": 1e999}',
    ],
)
def test_descriptions_of_any_form(tmp_path, text):
    folder = scale(tmp_path / "graph")
    (folder / "servable.json").write_bytes(text)
    with pytest.raises(IntegrityError):
        loaded(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 5},
        {"name": None},
        {"version": 5},
        {"inputs": {}},
        {"model": "../graph/model.onnx"},
        {"model": ""},
        {"model": "/etc/passwd"},
        {"model": "nosuch.onnx"},
        {"files": []},
        {"files": {"../x": "0"}},
        {"inputs": [1]},
    ],
)
def test_descriptions_with_wrong_values(tmp_path, changes):
    folder = scale(tmp_path / "graph")
    path = folder / "servable.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))
    with pytest.raises(CumulantError):
        loaded(folder)


@pytest.mark.parametrize("name", ['a"b', "a\nb", "../../etc", "a/b", "", "ünï", "x" * 5000])
def test_names_of_any_letters_do_no_harm(tmp_path, name):
    folder = resealed(scale(tmp_path / "graph"), name=name, version=name)
    app = loaded(folder).app
    answer = app.models.get(name)
    assert answer.version == (name or "1")
    for series in app.series():
        assert series.labels[0] == name


def test_sizes_that_nobody_has_memory_for_are_not_made_up(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 10**12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10**12])],
    )
    folder = scale(tmp_path / "graph")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    spec = {"name": "x", "datatype": "FP32", "shape": [-1, 10**12]}
    started = time.monotonic()
    loaded(resealed(folder, inputs=[spec], outputs=[spec | {"name": "y"}]))
    assert time.monotonic() - started < 60


def test_weights_outside_the_folder_are_not_read(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(4))
    folder = scale(tmp_path / "graph")
    model = onnx.load(folder / "model.onnx")
    tensor = model.graph.initializer[0]
    for where in ("../secret.bin", str(tmp_path / "secret.bin")):
        tensor.ClearField("float_data")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        del tensor.external_data[:]
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", where
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(IntegrityError):
            loaded(resealed(folder))


def test_links_may_not_lead_out_of_the_repository(tmp_path):
    outside = scale(tmp_path / "outside", name="outside")
    root = tmp_path / "root"
    scale(root / "inside")
    (root / "again").symlink_to(root / "inside")
    repository = Repository([root])
    repository.check(root / "again")  # within: as mounted volumes are laid out
    (root / "out").symlink_to(outside)
    with pytest.raises(IntegrityError, match="leads out of the repository"):
        repository.check(root / "out")
    (root / "out").unlink()
    (root / "inside" / "model.onnx").unlink()
    (root / "inside" / "model.onnx").symlink_to(outside / "model.onnx")
    with pytest.raises(IntegrityError, match="leads out of the repository"):
        loaded(root / "inside")
    link = tmp_path / "link"
    link.symlink_to(outside)
    loaded(link)  # a root may be a link itself: whoever starts the server chose it


def test_a_pipe_in_a_model_s_place_is_not_waited_for(tmp_path):
    folder = scale(tmp_path / "graph")
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    with pytest.raises(IntegrityError, match="no plain file"):
        loaded(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_said(tmp_path):
    scale(tmp_path / "root" / "graph")
    (tmp_path / "root").chmod(0)
    try:
        with pytest.raises(CumulantError, match="cannot be read"):
            loaded(tmp_path / "root")
    finally:
        (tmp_path / "root").chmod(0o700)


def staff_of(root, opened=open_model, put=None):
    async def keep(models):
        if put is not None:
            await put(models)

    async def told():
        return []

    repository = Repository([root])
    staff = WorkerDuties(ModelSet([open_model(root / "graph")]), repository, opened, put=keep, series=told)
    return staff, Control(SingleWorker(staff), repository)


def test_a_load_is_finished_or_undone_though_its_caller_goes_away(tmp_path):
    scale(tmp_path / "graph")
    begun, gate = threading.Event(), threading.Event()

    def slowly(folder):
        begun.set()
        assert gate.wait(60)
        return open_model(folder)

    async def act():
        staff, control = staff_of(tmp_path, slowly)
        before = staff.models.get("graph")
        load = asyncio.ensure_future(control.load("graph"))
        await asyncio.to_thread(begun.wait, 10)
        load.cancel()
        gate.set()
        for _ in range(500):
            if staff.models.get("graph") is not before:
                break
            await asyncio.sleep(0.01)
        return staff.models.get("graph") is not before, staff._staged

    assert asyncio.run(act()) == (True, {})


def test_a_store_that_does_not_answer_leaves_the_old_set_in_place(tmp_path):
    scale(tmp_path / "graph")

    async def refuse(models):
        raise EngineUnavailableError("the store is busy")

    async def act():
        staff, control = staff_of(tmp_path, put=refuse)
        before = staff.models
        with pytest.raises(EngineUnavailableError):
            await control.load("graph")
        with pytest.raises(EngineUnavailableError):
            await control.unload("graph")
        return staff.models is before, staff._staged

    assert asyncio.run(act()) == (True, {})


def test_a_worker_that_knows_nothing_of_a_change_makes_it_all_the_same(tmp_path):
    scale(tmp_path / "graph", 2.0)

    async def act():
        staff, _ = staff_of(tmp_path)
        before = staff.models.get("graph")
        await staff.do("commit", {"name": "graph", "key": "of another life"})
        return staff.models.get("graph") is not before

    assert asyncio.run(act())


def test_changes_at_once_do_not_undo_each_other(tmp_path):
    for name in ("graph", "b", "c"):
        scale(tmp_path / name, name=name)

    async def act():
        async def slowly(models):
            assert isinstance(models, ModelSet)
            await asyncio.sleep(0.05)

        staff, control = staff_of(tmp_path, put=slowly)
        other = Control(SingleWorker(staff), Repository([tmp_path]))  # as another worker's, with a lock of its own
        await asyncio.gather(control.load("b"), other.load("c"))
        return sorted(staff.models.names())

    assert asyncio.run(act()) == ["b", "c", "graph"]


def test_who_asks_another_process_always_hears_something(capfd):
    async def fail(verb, arguments):
        raise MemoryError

    async def act():
        ends = socket.socketpair()
        pairs = [await asyncio.open_connection(sock=end) for end in ends]
        asking, asked = Channel(*pairs[0], fail), Channel(*pairs[1], fail)
        tasks = [asyncio.ensure_future(one.listen()) for one in (asking, asked)]
        try:
            with pytest.raises(CumulantError, match="prepare failed: MemoryError"):
                await asyncio.wait_for(asking.call("prepare", {}), 5)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    asyncio.run(act())
    assert "MemoryError" in capfd.readouterr().err


def test_versions_of_many_digits_are_texts(tmp_path):
    long = "9" * 5000
    resealed(scale(tmp_path / "a"), version=long)
    resealed(scale(tmp_path / "b"), version="2")
    app = loaded(tmp_path).app
    assert app.models.get("graph").version == "2"
    config = _config(app.models.get("graph", long))
    assert ParseDict({"config": config}, message_class("ModelConfigResponse")()).config.name == "graph"


def test_two_folders_with_the_same_version_are_both_named(tmp_path):
    first, second = scale(tmp_path / "m" / "a"), scale(tmp_path / "m" / "b")
    settings = Settings(folders=(str(tmp_path / "m"),))
    for start in (lambda: Worker(settings), LoadCheck(settings).check_all):
        with pytest.raises(UsageError, match="version 1 is given twice") as caught:
            start()
        assert str(first) in caught.value.message
        assert str(second) in caught.value.message
