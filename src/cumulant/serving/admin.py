"""Administrative paths: model repository, configuration, statistics, metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cumulant.core.errors import RefusedError, RequestError
from cumulant.core.prometheus import OPEN_METRICS, TEXT, Series, accepts_open_metrics, exposition
from cumulant.core.servable import UNREGISTERED, GraphServable
from cumulant.serving.errors import HttpError
from cumulant.serving.http.messages import Request, Response, json_response
from cumulant.serving.models.control import Control, Fleet
from cumulant.serving.models.model import Model
from cumulant.serving.protocol.json_body import decode_body, decode_json
from cumulant.serving.reasons.reasoning import DESCRIBED
from cumulant.serving.telemetry.metrics import FAMILIES, sum_series

_NS = 1e9
#: bytes of a request body to the repository
_MOST_BODY = 64 * 1024


async def answer_repository(control: Control | None, request: Request, parts: Sequence[str]) -> Response:
    """`/v2/repository/index` and `/v2/repository/models/NAME/load|unload`.

    Raises:
        HttpError: 403 where model control is off.
        CumulantError: as `Control`.
    """
    document = _body(request)
    match parts:
        case ["index"]:
            if control is None:
                raise HttpError(503, "the server is starting")
            return json_response(await control.index(ready_only=_ready_only(document)))
        case ["models", name, "load"]:
            await _load(require_control(control), name, document)
        case ["models", name, "unload"]:
            await require_control(control).unload(name)
        case _:
            raise HttpError(404, "there is nothing at this path", hint="see /v2/repository/index")
    return Response(200, b"{}")


async def _load(control: Control, name: str, document: Mapping[str, Any]) -> None:
    if document.get("parameters"):
        raise no_parameters()
    try:
        await control.load(name)
    except RefusedError as error:  # a broken or altered folder is its writer's fault, not the server's
        raise HttpError(400, error.message, hint=error.hint) from error


def no_parameters() -> RequestError:
    """Error for load parameters, which are not supported."""
    return RequestError("loading takes no parameters: a model is what its folder holds", subject="parameters")


def _ready_only(document: Mapping[str, Any]) -> bool:
    ready_only = document.get("ready", False)
    if not isinstance(ready_only, bool):
        raise RequestError('"ready" must be true or false', subject="ready")
    return ready_only


def require_control(control: Control | None) -> Control:
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
    document = decode_body(decode_json, request.body, expected="send {}")
    if not isinstance(document, dict):
        raise RequestError("the body must be a JSON object")
    return document


async def gather_series(fleet: Fleet) -> list[Series]:
    """Metric series of all workers, summed."""
    answers = await fleet.everywhere("metrics", {})
    return sum_series(msgspec.convert(series, Series) for answer in answers for series in answer)


async def answer_metrics(fleet: Fleet, accept: bytes = b"") -> Response:
    """`/metrics` over all workers, in the format that the header `Accept` asks for."""
    open_metrics = accepts_open_metrics(accept.decode("latin-1"))
    text = exposition(FAMILIES, await gather_series(fleet), open_metrics=open_metrics)
    return Response(200, text.encode(), (OPEN_METRICS if open_metrics else TEXT).encode())


async def answer_statistics(fleet: Fleet, models: Sequence[Model]) -> Response:
    """Statistics extension over all workers: times in nanoseconds since the server started."""
    series = await gather_series(fleet)
    return json_response({"model_stats": [model_statistics(model, series) for model in models]})


def model_statistics(model: Model, series: Sequence[Series]) -> dict[str, Any]:
    """Statistics of one model under the protocol's names."""
    own = [item for item in series if item.labels[:2] == (model.name, model.version)]

    def total(family: str) -> float:
        return sum(item.value for item in own if item.family == family)

    answered = [item for item in own if item.family == "cumulant_requests_total"]
    good = sum(item.value for item in answered if item.labels[-1] == "200")
    bad = sum(item.value for item in answered if item.labels[-1] != "200")
    spent = round(total("cumulant_request_seconds") * _NS)
    waited = round(total("cumulant_queue_seconds") * _NS)
    ran = round(total("cumulant_run_seconds") * _NS)
    runs = sum(sum(item.counts) for item in own if item.family == "cumulant_run_seconds")

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
    """State tensors of a stateful graph; empty for other models."""
    if not isinstance(model.servable, GraphServable) or not model.stateful:
        return {}
    states = [
        {
            "input_name": tensor.input,
            "output_name": tensor.output,
            "data_type": f"TYPE_{tensor.datatype}",
            "dims": list(tensor.shape),
        }
        for tensor in model.servable.state
    ]
    idle = round(model.servable.state_idle * 1e6)
    return {"sequence_batching": {"max_sequence_idle_microseconds": idle, "state": states}}


def model_metadata(model: Model, versions: Sequence[str]) -> dict[str, object]:
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


def model_configuration(model: Model) -> dict[str, Any]:
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
        "input": [tensor(spec["name"], spec["datatype"], spec["shape"]) for spec in model.inputs.values()],
        "output": [tensor(name, datatype, shape) for name, (datatype, shape) in model.outputs.items()],
        **_sequences(model),
        "parameters": {"unregistered": {"string_value": str(model.version == UNREGISTERED).lower()}},
    }
