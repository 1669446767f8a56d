"""Paths about the server rather than a prediction: repository, configuration, statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from cumulant.core.errors import RefusedError, RequestError
from cumulant.core.servable import GraphServable
from cumulant.serving.errors import HttpError
from cumulant.serving.http.messages import Request, Response, json_response
from cumulant.serving.models.model import Model
from cumulant.serving.models.row_model import UNREGISTERED
from cumulant.serving.protocol.json_body import decoded
from cumulant.serving.protocol.reasons import DESCRIBED
from cumulant.serving.telemetry.metrics import Series, added, exposition
from cumulant.serving.workers.control import Control
from cumulant.serving.workers.fleet import Fleet

_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
_NS = 1e9
#: bytes of what the repository is asked
_MOST_BODY = 64 * 1024


async def repository(control: Control | None, request: Request, parts: Sequence[str]) -> Response:
    """`/v2/repository/index` and `/v2/repository/models/NAME/load|unload`.

    Raises:
        HttpError: 403 where model control is off.
        CumulantError: as `Control`.
    """
    asked = _body(request)
    match parts:
        case ["index"]:
            if control is None:
                raise HttpError(503, "the server is starting")
            return json_response(await control.index(ready_only=_ready_only(asked)))
        case ["models", name, "load"]:
            await _load(allowed(control), name, asked)
        case ["models", name, "unload"]:
            await allowed(control).unload(name)
        case _:
            raise HttpError(404, "there is nothing at this path", hint="see /v2/repository/index")
    return Response(200, b"{}")


async def _load(control: Control, name: str, asked: Mapping[str, Any]) -> None:
    if asked.get("parameters"):
        raise no_parameters()
    try:
        await control.load(name)
    except RefusedError as error:  # a broken or altered folder is its writer's fault, not the server's
        raise HttpError(400, error.message, hint=error.hint) from error


def no_parameters() -> RequestError:
    """The refusal of another content or configuration than the folder's."""
    return RequestError("loading takes no parameters: a model is what its folder holds", subject="parameters")


def _ready_only(asked: Mapping[str, Any]) -> bool:
    found = asked.get("ready", False)
    if not isinstance(found, bool):
        raise RequestError('"ready" must be true or false', subject="ready")
    return found


def allowed(control: Control | None) -> Control:
    """Raises HttpError (403) where model control is off."""
    if control is None:
        hint = "start the server with --model-control explicit"
        raise HttpError(403, "this server does not load or unload models by request", hint=hint)
    return control


def _body(request: Request) -> Mapping[str, Any]:
    if not request.body:
        return {}
    if len(request.body) > _MOST_BODY:
        raise HttpError(413, f"the body of a request to the repository is larger than {_MOST_BODY} bytes")
    found = decoded(_decode, request.body, expected="send {}")
    if not isinstance(found, dict):
        raise RequestError("the body must be a JSON object")
    return found


async def all_series(fleet: Fleet) -> list[Series]:
    """What all workers counted, added up."""
    told = await fleet.everywhere("metrics", {})
    return added(msgspec.convert(series, Series) for one in told for series in one)


async def metrics(fleet: Fleet) -> Response:
    """`/metrics`, of all workers."""
    text = exposition(await all_series(fleet))
    return Response(200, text.encode(), b"text/plain; version=0.0.4; charset=utf-8")


async def statistics(fleet: Fleet, models: Sequence[Model]) -> Response:
    """The statistics extension, of all workers: times in nanoseconds since the server started."""
    series = await all_series(fleet)
    return json_response({"model_stats": [model_statistics(model, series) for model in models]})


def model_statistics(model: Model, series: Sequence[Series]) -> dict[str, Any]:
    """One model's counts as the protocol names them."""
    mine = [one for one in series if one.labels[:2] == (model.name, model.version)]

    def total(family: str) -> float:
        return sum(one.value for one in mine if one.family == family)

    answered = [one for one in mine if one.family == "cumulant_requests_total"]
    good = sum(one.value for one in answered if one.labels[3] == "200")
    bad = sum(one.value for one in answered if one.labels[3] != "200")
    spent = round(total("cumulant_request_seconds") * _NS)
    waited = round(total("cumulant_queue_seconds") * _NS)
    ran = round(total("cumulant_run_seconds") * _NS)
    runs = sum(sum(one.counts) for one in mine if one.family == "cumulant_run_seconds")

    def span(count: float, ns: int) -> dict[str, int]:
        return {"count": int(count), "ns": ns}

    return {
        "name": model.name,
        "version": model.version,
        "inference_count": int(total("cumulant_rows_total")),
        "execution_count": runs,
        "inference_stats": {
            "success": span(good, spent),
            "fail": span(bad, 0),
            "queue": span(good, waited),
            "compute_input": span(good, max(0, spent - waited - ran)),
            "compute_infer": span(good, ran),
            "compute_output": span(good, 0),
            "cache_hit": span(0, 0),
            "cache_miss": span(0, 0),
        },
    }


def _sequences(model: Model) -> dict[str, Any]:
    """What is kept between the requests of a sequence, where anything is."""
    if not isinstance(model.servable, GraphServable) or not model.stateful:
        return {}
    states = [
        {
            "input_name": one.input,
            "output_name": one.output,
            "data_type": f"TYPE_{one.datatype}",
            "dims": list(one.shape),
        }
        for one in model.servable.state
    ]
    idle = round(model.servable.state_idle * 1e6)
    return {"sequence_batching": {"max_sequence_idle_microseconds": idle, "state": states}}


def metadata(model: Model, versions: Sequence[str]) -> dict[str, object]:
    """Model metadata of the protocol."""
    return {
        "name": model.name,
        "versions": list(versions),
        "platform": "cumulant_servable",
        "inputs": list(model.inputs.values()),
        "outputs": [
            {"name": name, "datatype": datatype, "shape": list(shape)}
            for name, (datatype, shape) in model.outputs.items()
        ]
        + ([] if model.reasons is None else [DESCRIBED]),
    }


def configuration(model: Model) -> dict[str, Any]:
    """The model configuration extension."""

    def tensor(name: str, datatype: str, shape: Sequence[int]) -> dict[str, Any]:
        kind = "STRING" if datatype == "BYTES" else datatype
        return {"name": name, "data_type": f"TYPE_{kind}", "dims": list(shape)}

    return {
        "name": model.name,
        "platform": "cumulant_servable",
        "backend": "cumulant",
        "max_batch_size": 0,
        "version_policy": {"specific": {"versions": [model.version]}},
        "input": [tensor(one["name"], one["datatype"], one["shape"]) for one in model.inputs.values()],
        "output": [tensor(name, datatype, shape) for name, (datatype, shape) in model.outputs.items()],
        **_sequences(model),
        "parameters": {"unregistered": {"string_value": str(model.version == UNREGISTERED).lower()}},
    }
