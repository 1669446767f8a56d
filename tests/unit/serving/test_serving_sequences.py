"""State tensors: what a server keeps of a sequence between its requests, in order, once, within bounds."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import threading
import time

import grpc
import jsonschema
import msgspec
import numpy as np
import pytest
from grpc_support import message, over, packed, unpacked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from serving_models import ask, call
from tensor_models import write, write_double, write_history, write_sums

from cumulant.core.errors import DeadlineError, EngineUnavailableError, IntegrityError, OverloadedError, UsageError
from cumulant.core.servable import StateTensor
from cumulant.serving.app import ServingApplication
from cumulant.serving.endpoints.openapi import document
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.scheduling.runner import Scheduling
from cumulant.serving.sequences.sequence_store import SequenceBounds, SequenceStore

INFER = "/v2/models/sums/infer"


@pytest.fixture
def shelf(tmp_path):
    found = SequenceStore(tmp_path / "kept")
    yield found
    found.close()


@pytest.fixture
def app(tmp_path, shelf):
    return ServingApplication(ModelSet([open_model(write_sums(tmp_path / "sums"), sequences=shelf)]))


def asked(values, outputs=(), **parameters):
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(values) // 2, 2], "data": values}
    return {"inputs": [tensor], "outputs": [{"name": name} for name in outputs], "parameters": parameters}


def step(app, values, *outputs, status=200, **parameters):
    answer = call(app, "POST", INFER, asked(values, outputs, **parameters))
    assert answer.status_code == status, answer.text
    found = answer.json()
    return found["error"] if status != 200 else {one["name"]: one["data"] for one in found["outputs"]}


def test_a_sequence_adds_up_and_another_one_is_its_own(app):
    assert step(app, [1, 2], sequence_id=7, sequence_start=True) == {"total": [1, 2]}
    assert step(app, [10, 20], sequence_id="7", sequence_start=True) == {"total": [10, 20]}
    assert step(app, [1, 1], sequence_id=7) == {"total": [2, 3]}
    assert step(app, [1, 1], sequence_id="7") == {"total": [11, 21]}
    assert step(app, [1, 1], sequence_id=7, sequence_end=True) == {"total": [3, 4]}
    assert "no such sequence" in step(app, [1, 1], status=404, sequence_id=7)
    assert step(app, [0, 0], sequence_id="7") == {"total": [11, 21]}
    assert step(app, [5, 5], sequence_id="7", sequence_start=True) == {"total": [5, 5]}


def test_state_is_answered_only_by_name_and_never_asked(app):
    found = step(app, [1, 2], "left", "total", sequence_id=1, sequence_start=True)
    assert found == {"left": [1, 2], "total": [1, 2]}
    told = call(app, "GET", "/v2/models/sums").json()
    assert [one["name"] for one in told["inputs"]] == ["x"]
    body = asked([1, 2], sequence_id=1)
    body["inputs"].append({"name": "kept", "datatype": "FP32", "shape": [1, 2], "data": [9, 9]})
    assert "kept" in call(app, "POST", INFER, body).json()["error"]
    config = call(app, "GET", "/v2/models/sums/config").json()["sequence_batching"]
    assert config["max_sequence_idle_microseconds"] == 600_000_000
    assert config["state"][0]["output_name"] == "left"


def test_start_and_end_at_once_keeps_nothing(app, shelf):
    assert step(app, [1, 2], sequence_id=3, sequence_start=True, sequence_end=True) == {"total": [1, 2]}
    assert shelf.totals() == (0, 0)


def test_requests_without_a_sequence_are_refused(app):
    for parameters in ({}, {"sequence_id": 0}, {"sequence_id": ""}, {"sequence_start": True}):
        assert "sequence_id" in step(app, [1, 2], status=400, **parameters)
    for path, body in (("/v1/models/sums/predict", {"x": [1, 2]}), ("/invocations", {"inputs": {"x": [[1, 2]]}})):
        answer = call(app, "POST", path, body)
        assert (answer.status_code, "sequence_id" in answer.json()["error"]) == (400, True)


def test_a_step_that_was_taken_is_not_taken_twice(app):
    step(app, [1, 2], sequence_id=1, sequence_start=True, sequence_step=1)
    step(app, [1, 2], sequence_id=1, sequence_step=2)
    assert "2 requests" in step(app, [1, 2], status=409, sequence_id=1, sequence_step=2)
    assert step(app, [0, 0], sequence_id=1, sequence_step=3) == {"total": [2, 4]}


def test_the_rows_of_a_sequence_stay_as_many(app):
    assert step(app, [1, 2, 3, 4], sequence_id=1, sequence_start=True) == {"total": [1, 2, 3, 4]}
    assert "2 rows" in step(app, [1, 2], status=400, sequence_id=1)
    assert step(app, [1, 1, 1, 1], sequence_id=1) == {"total": [2, 3, 4, 5]}


def test_state_may_grow(tmp_path, shelf):
    app = ServingApplication(ModelSet([open_model(write_history(tmp_path / "h"), sequences=shelf)]))
    for number, size in enumerate((3, 1, 4)):
        body = {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [size], "data": [1] * size}],
            "parameters": {"sequence_id": 5, "sequence_start": number == 0},
        }
        found = call(app, "POST", "/v2/models/history/infer", body).json()["outputs"]
        assert [one["name"] for one in found] == ["count"]
    assert found[0]["data"] == [8]


def test_state_whose_rows_come_second_as_recurrent_networks_have_it(tmp_path, shelf):
    nodes = [
        helper.make_node("Constant", [], ["a"], value=helper.make_tensor("v", TensorProto.INT64, [1], [0])),
        helper.make_node("Unsqueeze", ["x", "a"], ["wide"]),
        helper.make_node("Add", ["wide", "kept"], ["left"]),
        helper.make_node("Squeeze", ["left", "a"], ["total"]),
    ]
    inputs, outputs = (
        [("x", "FP32", (-1, 2)), ("kept", "FP32", (1, -1, 2))],
        [("total", "FP32", (-1, 2)), ("left", "FP32", (1, -1, 2))],
    )
    state = (StateTensor("kept", "left", "FP32", (1, -1, 2)),)
    folder = write(tmp_path / "sums", "sums", inputs, outputs, nodes, state=state)
    app = ServingApplication(ModelSet([open_model(folder, sequences=shelf)]))
    assert step(app, [1, 2, 3, 4, 5, 6], sequence_id=1, sequence_start=True) == {"total": [1, 2, 3, 4, 5, 6]}
    assert step(app, [1, 1, 1, 1, 1, 1], sequence_id=1) == {"total": [2, 3, 4, 5, 6, 7]}
    assert "3 rows" in step(app, [1, 1], status=400, sequence_id=1)


HOSTILE = [1.5, -1, 2**64, 10**400, True, None, [1], {"a": 1}, "a\0b", "x" * 257, "line\nbreak", "\u202e"]


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_hostile_ids_are_refused(app, value):
    assert "sequence_id" in step(app, [1, 2], status=400, sequence_id=value, sequence_start=True)


@pytest.mark.parametrize(
    "wrong", [{"sequence_start": 1}, {"sequence_end": "yes"}, {"sequence_step": 0}, {"sequence_step": 1.0}], ids=repr
)
def test_hostile_flags_are_refused(app, wrong):
    assert next(iter(wrong)) in step(app, [1, 2], status=400, sequence_id=1, **wrong)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(("sequence_id", "sequence_start", "sequence_end", "sequence_step", "timeout"), JSON),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_no_parameters_make_a_fault_of_the_server(app, several):
    for parameters in several:
        status = call(app, "POST", INFER, asked([1, 2], **parameters)).status_code
        assert status == 200 or 400 <= status < 500, parameters
    assert step(app, [1, 2], sequence_id="good", sequence_start=True) == {"total": [1, 2]}


def test_a_model_without_state_does_not_read_them(tmp_path):
    app = ServingApplication(ModelSet([open_model(write_double(tmp_path / "d"))]))
    body = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}],
        "parameters": {"sequence_id": 4},
    }
    assert call(app, "POST", "/v2/models/double/infer", body).json()["outputs"][0]["data"] == [2, 4, 6]


def test_overlapping_requests_of_one_sequence_are_answered_in_order(tmp_path, shelf):
    model = open_model(write_sums(tmp_path / "sums"), sequences=shelf, scheduling=Scheduling(inline=0.0, queue=9.0))

    async def run():
        works = [model.from_tensors([tensor(n)]) for n in range(40)]
        return await asyncio.gather(
            *(
                model.runner.run_later(work.feeds, work.rows, demand(start=number == 0))
                for number, work in enumerate(works)
            )
        )

    found = asyncio.run(run())
    assert [one[0][0, 0] for one in found] == np.cumsum(range(40)).tolist()


def tensor(n):
    from cumulant.serving.protocol.tensors import InputTensor

    return InputTensor("x", "FP32", [1, 2], [float(n), 0.0])


def demand(start=False, end=False):
    from cumulant.serving.scheduling.job_queue import Demand, SequencePosition

    return Demand(turn=SequencePosition(b"i1", start, end))


def test_two_workers_that_share_a_shelf_agree_with_a_plain_loop(tmp_path):
    """The oracle: sums in Python. Two servers, each with its own shelf on the one folder, take random turns."""
    folder, rng = write_sums(tmp_path / "sums"), random.Random(1)
    shelves = [SequenceStore(tmp_path / "kept") for _ in range(2)]
    apps = [ServingApplication(ModelSet([open_model(folder, sequences=one)])) for one in shelves]
    sums: dict[int, np.ndarray] = {}
    for _ in range(150):
        who, x = rng.randrange(1, 6), [rng.randrange(100), rng.randrange(100)]
        start, end = who not in sums or rng.random() < 0.1, rng.random() < 0.1
        sums[who] = np.array(x) + (0 if start else sums[who])
        found = step(rng.choice(apps), x, sequence_id=who, sequence_start=start, sequence_end=end)
        assert found["total"] == sums[who].tolist()
        if end:
            del sums[who]
    assert shelves[0].totals()[0] == len(sums)
    for one in shelves:
        one.close()


def test_requests_that_meet_in_two_workers_are_each_applied_once(tmp_path):
    folder = write_sums(tmp_path / "sums")
    shelves = [SequenceStore(tmp_path / "kept") for _ in range(2)]
    apps = [ServingApplication(ModelSet([open_model(folder, sequences=one)])) for one in shelves]
    step(apps[0], [0, 0], sequence_id=1, sequence_start=True)
    seen: list[float] = []

    def client(app):
        async def run():
            for _ in range(25):
                answer = await ask(app, "POST", INFER, content=json.dumps(asked([1, 0], sequence_id=1)))
                seen.append(answer.json()["outputs"][0]["data"][0])

        asyncio.run(run())

    threads = [threading.Thread(target=client, args=(app,)) for app in apps]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(seen) == list(range(1, 51))
    for one in shelves:
        one.close()  # type: ignore[attr-defined]


def test_an_idle_sequence_is_forgotten_and_makes_room(tmp_path):
    now = [1000.0]
    shelf = SequenceStore(tmp_path, SequenceBounds(sequences=2), clock=lambda: now[0])
    one = [np.ones((1, 2), np.float32)]
    assert shelf.put("m", b"a", one, after=None, idle=10)
    assert shelf.put("m", b"b", one, after=None, idle=10)
    with pytest.raises(OverloadedError, match="2 sequences"):
        shelf.put("m", b"c", one, after=None, idle=10)
    now[0] += 9
    kept = shelf.find("m", b"a")
    assert shelf.put("m", b"a", one, after=kept, idle=10)
    now[0] += 2
    assert shelf.find("m", b"b") is None
    assert shelf.put("m", b"c", one, after=None, idle=10)
    assert shelf.find("m", b"a").step == 2
    assert shelf.totals()[0] == 2
    shelf.close()


def test_a_step_upon_what_is_there_no_more_changes_nothing(tmp_path):
    shelf = SequenceStore(tmp_path)
    one = [np.ones((1, 2), np.float32)]
    shelf.put("m", b"a", one, after=None, idle=10)
    first = shelf.find("m", b"a")
    shelf.put("m", b"a", [2 * one[0]], after=None, idle=10)  # begun anew: the step is the same, the revision is not
    assert not shelf.put("m", b"a", one, after=first, idle=10)
    assert not shelf.put("m", b"a", None, after=first, idle=10)
    assert shelf.find("m", b"a").states[0][0, 0] == 2
    shelf.close()


def test_bounds_of_bytes_are_kept_and_told_as_429(tmp_path):
    shelf = SequenceStore(tmp_path / "kept", SequenceBounds(bytes=200))
    app = ServingApplication(ModelSet([open_model(write_sums(tmp_path / "sums"), sequences=shelf)]))
    step(app, [1, 2] * 8, sequence_id=1, sequence_start=True)
    answer = call(app, "POST", INFER, asked([1, 2] * 16, sequence_id=2, sequence_start=True))
    assert (answer.status_code, "bytes" in answer.json()["error"]) == (429, True)
    assert "retry-after" in answer.headers
    step(app, [1, 2] * 8, sequence_id=1, sequence_end=True)
    assert shelf.totals() == (0, 0)
    step(app, [1, 2] * 16, sequence_id=2, sequence_start=True)
    shelf.close()


def test_too_many_waiting_requests_of_one_sequence_are_refused(tmp_path, shelf):
    model = open_model(write_sums(tmp_path / "sums"), sequences=shelf)

    async def run():
        work = model.from_tensors([tensor(1)])
        await model.runner.run_later(work.feeds, 1, demand(start=True))
        calls = [model.runner.run_later(work.feeds, 1, demand()) for _ in range(100)]
        return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(run())
    refused = [one for one in found if isinstance(one, OverloadedError)]
    assert refused
    assert len(refused) + sum(isinstance(one, list) for one in found) == 100


def test_a_request_whose_time_passes_in_the_queue_takes_no_step(tmp_path, shelf):
    model = open_model(write_sums(tmp_path / "sums"), sequences=shelf)
    work = model.from_tensors([tensor(1)])

    async def run():
        await model.runner.run_later(work.feeds, 1, demand(start=True))
        late = msgspec.structs.replace(demand(), deadline=time.perf_counter() - 1)
        with pytest.raises(DeadlineError):
            await model.runner.run_later(work.feeds, 1, late)
        return await model.runner.run_later(work.feeds, 1, demand())

    assert asyncio.run(run())[0][0, 0] == 2


def test_a_new_version_starts_anew_and_the_old_one_s_state_stays_its_own(tmp_path, shelf):
    models = [open_model(write_sums(tmp_path / v, version=v), sequences=shelf) for v in ("1", "2")]
    app = ServingApplication(ModelSet(models[:1]))
    step(app, [1, 2], sequence_id=1, sequence_start=True)
    app.models = ModelSet(models[1:])
    assert "new version" in step(app, [1, 2], status=404, sequence_id=1)
    app.models = ModelSet(models[:1])
    assert step(app, [1, 2], sequence_id=1) == {"total": [2, 4]}
    other = open_model(write_sums(tmp_path / "other", factor=2.0), sequences=shelf)  # the same name and version
    app.models = ModelSet([other])
    step(app, [1, 2], status=404, sequence_id=1)


def test_state_outlives_the_process_that_keeps_it(tmp_path):
    folder = write_sums(tmp_path / "sums")
    for number in range(3):
        shelf = SequenceStore(tmp_path / "kept")
        app = ServingApplication(ModelSet([open_model(folder, sequences=shelf)]))
        found = step(app, [1, 2], sequence_id=1, sequence_start=number == 0)
        shelf.close()
    assert found == {"total": [3, 6]}


def test_a_refused_request_leaves_the_state_as_it_was(app):
    step(app, [1, 2], sequence_id=1, sequence_start=True)
    body = asked([1, 2], sequence_id=1)
    body["inputs"][0]["shape"] = [1, 3]
    assert call(app, "POST", INFER, body).status_code == 400
    assert step(app, [0, 0], sequence_id=1) == {"total": [1, 2]}


def test_a_damaged_or_locked_file_is_told_and_is_no_fault(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "sequences.db").write_bytes(b"no database" * 500)
    shelf = SequenceStore(tmp_path / "kept")
    app = ServingApplication(ModelSet([open_model(write_sums(tmp_path / "sums"), sequences=shelf)]))
    assert "state of sequences" in step(app, [1, 2], status=503, sequence_id=1)
    with pytest.raises(EngineUnavailableError):
        shelf.put("m", b"a", [], after=None, idle=1)
    shelf.close()


def test_a_model_with_state_needs_a_place_for_it(tmp_path):
    with pytest.raises(UsageError, match="keeps state"):
        open_model(write_sums(tmp_path / "sums"))


@pytest.mark.parametrize(
    "state",
    [
        StateTensor("no", "left", "FP32", (-1, 2)),
        StateTensor("kept", "total", "FP64", (-1, 2)),
        StateTensor("kept", "left", "FP32", (-1, 3)),
        StateTensor("kept", "left", "FP32", (2,)),
    ],
    ids=repr,
)
def test_a_description_that_lies_is_refused(tmp_path, shelf, state):
    nodes = [helper.make_node("Add", ["x", "kept"], ["left"]), helper.make_node("Identity", ["left"], ["total"])]
    specs = [("x", "FP32", (-1, 2)), ("kept", "FP32", (-1, 2))], [("total", "FP32", (-1, 2)), ("left", "FP32", (-1, 2))]
    folder = write(tmp_path / "bad", "bad", *specs, nodes, state=(state,))
    with pytest.raises(IntegrityError):
        open_model(folder, sequences=shelf)


def test_the_document_asks_for_the_sequence_and_names_no_path_of_plain_rows(app):
    paths = document(app)["paths"]
    assert not [path for path in paths if path.endswith(("predict", "invocations"))]
    schema = paths[INFER]["post"]["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.validate(asked([1, 2], sequence_id="a"), schema)
    assert not jsonschema.Draft202012Validator(schema).is_valid(asked([1, 2]))


def grpc_step(value, model="sums", **parameters):
    found = message("ModelInferRequest", model_name=model)
    found.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    found.raw_input_contents.append(packed("FP32", [value, 0]))
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    for name, given_value in parameters.items():
        setattr(found.parameters[name], kinds[type(given_value)], given_value)
    return found


def test_grpc_unary_and_streams_share_the_sequence(app):
    code = grpc.StatusCode

    async def talk(client):
        found = await client.infer(grpc_step(1, sequence_id="s", sequence_start=True))
        assert [one.name for one in found.outputs] == ["total"]
        asked = [grpc_step(n, sequence_id="s", sequence_end=n == 4) for n in (2, 3, 4)]
        answers = await client.stream(
            "/inference.GRPCInferenceService/ModelStreamInfer", [one.SerializeToString() for one in asked]
        )
        totals = [message("ModelStreamInferResponse").FromString(one).infer_response for one in answers]
        assert [unpacked("FP32", one.raw_output_contents[0])[0] for one in totals] == [3, 6, 10]
        await client.refused(code.NOT_FOUND, "sequence", "ModelInfer", grpc_step(1, sequence_id="s"))
        for wrong in (-1, 1.0, True, "a\0"):
            await client.refused(code.INVALID_ARGUMENT, "sequence_id", "ModelInfer", grpc_step(1, sequence_id=wrong))
        await client.infer(grpc_step(1, sequence_id=2, sequence_start=True))
        late = grpc_step(1, sequence_id=2, sequence_step=5)
        await client.refused(code.FAILED_PRECONDITION, "step", "ModelInfer", late)
        config = await client.ask("ModelConfig", message("ModelConfigRequest", name="sums"))
        assert config.config.sequence_batching.state[0].input_name == "kept"

    over(app, talk)


SHARED = ("/v2/systemsharedmemory/status", "/v2/cudasharedmemory/region/a/register", "/v2/systemsharedmemory")


def test_shared_memory_is_refused_in_words(app):
    for path in SHARED:
        for method in ("GET", "POST"):
            answer = call(app, method, path, None if method == "GET" else {})
            assert (answer.status_code, "shared memory" in answer.json()["error"]) == (400, True)
    extensions = call(app, "GET", "/v2").json()["extensions"]
    assert {"sequence", "classification"} <= set(extensions)
    assert not [one for one in extensions if "shared" in one]
    body = asked([1, 2], sequence_id=1)
    body["inputs"][0] = {
        "name": "x",
        "datatype": "FP32",
        "shape": [1, 2],
        "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8},
    }
    assert "shared_memory_region" in call(app, "POST", INFER, body).json()["error"]
    body = asked([1, 2], sequence_id=1)
    body["outputs"] = [{"name": "total", "parameters": {"shared_memory_region": "r"}}]
    assert "shared_memory_region" in call(app, "POST", INFER, body).json()["error"]

    async def talk(client):
        for method in ("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "CudaSharedMemoryUnregister"):
            await client.refused(grpc.StatusCode.UNIMPLEMENTED, "shared memory", method, b"")

    over(app, talk)


def test_the_totals_are_those_of_the_rows(tmp_path):
    rng, shelf = random.Random(2), SequenceStore(tmp_path)
    for _ in range(200):
        key = b"%d" % rng.randrange(8)
        states = None if rng.random() < 0.3 else [np.zeros(rng.randrange(5), np.float64)]
        shelf.put("m", key, states, after=rng.choice([None, shelf.find("m", key)]), idle=100)
    with sqlite3.connect(tmp_path / "sequences.db") as connection:
        count, size = connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM sequences").fetchone()
    connection.close()
    assert shelf.totals() == (count, size)
    shelf.close()
