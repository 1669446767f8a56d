"""Too much to do: refused with a time to come back, or answered by the declared fallback and marked."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from serving_graphs import scale, slow
from serving_models import ROW, call, servable

from cumulant.core.errors import UsageError
from cumulant.serving.app import ServingApplication
from cumulant.serving.cache.answer_cache import Caching
from cumulant.serving.http.limits import HttpLimits
from cumulant.serving.http.site import HttpSite
from cumulant.serving.models.fallback import Fallback
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.scheduling.runner import Scheduling
from cumulant.serving.settings import FallbackConfig

pytestmark = pytest.mark.slow

INFER = "/v2/models/graph/infer"
TIGHT = Scheduling(inline=0.0, queue=0.003, caching=Caching(mode="on"))


def body(value=1.0, **document):
    data = [value] * 700
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 700], "data": data}], **document}


def application(folder, declared=None, cheap=None):
    model = open_model(folder, scheduling=TIGHT)
    if declared is not None:
        model.fallback = Fallback(model, declared, None if cheap is None else open_model(cheap))
    return ServingApplication(ModelSet([model])), model


async def storm(app, bodies, path=INFER):
    """All at once, and what each was answered."""
    loop = asyncio.get_running_loop()
    site = HttpSite(app, HttpLimits())
    listening = await loop.create_server(site, "127.0.0.1", 0, backlog=512)
    host, port = listening.sockets[0].getsockname()
    limits = httpx.Limits(max_connections=len(bodies))
    async with listening, httpx.AsyncClient(base_url=f"http://{host}:{port}", limits=limits, timeout=60) as client:
        return await asyncio.gather(*(client.post(path, json=one) for one in bodies))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Some milliseconds a row, and never gathered."""
    return slow(tmp_path_factory.mktemp("slow") / "graph", depth=16, exact=False)


def test_more_than_can_be_done_in_time_is_refused_at_once_with_a_time_to_come_back(folder):
    app, model = application(folder)
    answers = asyncio.run(storm(app, [body(float(k)) for k in range(150)]))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert model.runner.refused == statuses.count(429)
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert "more to do" in refused.json()["error"]
    assert call(app, "POST", INFER, body()).status_code == 200


def test_a_timeout_that_cannot_be_met_is_told_at_once(folder):
    app, _ = application(folder)
    answer = call(app, "POST", INFER, body(parameters={"timeout": 100}))
    assert (answer.status_code, "timeout" in answer.json()["error"]) == (429, True)


def test_with_a_constant_every_request_is_answered_and_marked(folder):
    constant = {"y": [0.5] * 700}
    app, model = application(folder, FallbackConfig(constant=constant))
    answers = asyncio.run(storm(app, [body(float(k), id=str(k)) for k in range(150)]))
    assert {answer.status_code for answer in answers} == {200}
    degraded = [one for one in (answer.json() for answer in answers) if "parameters" in one]
    assert len(degraded) == model.fallback.counts["constant"] > 0
    assert all(one["parameters"] == {"degraded": "constant"} for one in degraded)
    assert all(one["outputs"][0]["data"] == [0.5] * 700 for one in degraded)
    assert len(degraded) < 150
    text = call(app, "GET", "/metrics").text
    assert f'cumulant_fallback_total{{model="graph",version="1",kind="constant"}} {len(degraded)}' in text


def test_a_cheaper_servable_answers_with_its_own_numbers(folder, tmp_path):
    cheap = slow(tmp_path / "cheap", depth=1, name="cheap")
    app, model = application(folder, FallbackConfig(servable=str(cheap)), cheap)
    if model.fallback._cheap.runner.cost.estimate(1) > 0.0004:
        model.fallback._cheap.runner.cost.fixed = model.fallback._cheap.runner.cost.each = 0.0
    answers = asyncio.run(storm(app, [body(float(k)) for k in range(150)]))
    kinds = {answer.json().get("parameters", {}).get("degraded") for answer in answers if answer.status_code == 200}
    assert kinds == {None, "servable"}
    assert model.fallback.counts["servable"] > 0


def test_the_last_answer_to_the_same_input_is_better_than_a_constant(folder):
    app, model = application(folder, FallbackConfig(cached=True, constant={"y": [0.5] * 700}))
    first = call(app, "POST", INFER, body(3.0)).json()["outputs"][0]["data"]
    model.runner.cache._entries = type(model.runner.cache._entries)(
        (key, (-1e9, size, raw)) for key, (_, size, raw) in model.runner.cache._entries.items()
    )  # too old to be taken for fresh
    bodies = [body(3.0) if k % 2 else body(float(k)) for k in range(200)]
    answers = asyncio.run(storm(app, bodies))
    found = [answer.json() for answer in answers]
    assert {answer.status_code for answer in answers} == {200}
    for sent, one in zip(bodies, found, strict=True):
        kind = one.get("parameters", {}).get("degraded")
        assert (kind == "constant") == (one["outputs"][0]["data"] == [0.5] * 700)
        if sent["inputs"][0]["data"][0] == 3.0 and kind != "constant":
            assert one["outputs"][0]["data"] == first


def test_rows_are_answered_by_a_constant_too(tmp_path):
    model = open_model(servable(tmp_path / "servable"), scheduling=Scheduling(inline=0.0, queue=-1.0))
    app = ServingApplication(ModelSet([model]))
    assert call(app, "POST", "/v1/models/flight-late/predict", ROW).status_code == 429
    model.fallback = Fallback(model, FallbackConfig(constant={"prediction": False, "probability": 0.01}), None)
    found = call(app, "POST", "/v1/models/flight-late/predict", ROW).json()
    assert (found["prediction"], found["probability"], found["degraded"]) == (False, 0.01, "constant")
    found = call(app, "POST", "/v1/models/flight-late/predict", [ROW, ROW]).json()
    assert (found["degraded"], len(found["predictions"])) == ("constant", 2)
    assert call(app, "POST", "/v1/models/flight-late/predict", {"distance": "x"}).status_code == 400


def test_a_fallback_that_does_not_fit_is_refused_when_it_is_declared(folder, tmp_path):
    model = open_model(folder)
    with pytest.raises(UsageError, match="lacks the output y"):
        Fallback(model, FallbackConfig(constant={"z": 1}), None)
    with pytest.raises(UsageError, match="no FP32"):
        Fallback(model, FallbackConfig(constant={"y": "much"}), None)
    with pytest.raises(UsageError, match="lacks the output y"):
        Fallback(model, FallbackConfig(servable="x"), open_model(scale(tmp_path / "other")))
    rows = open_model(servable(tmp_path / "rows"))
    with pytest.raises(UsageError, match="no answer"):
        Fallback(rows, FallbackConfig(constant={"probability": 1}), None)
