"""Inference requests of the protocol over HTTP: a JSON document, followed by binary tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from cumulant.core.errors import RequestError
from cumulant.serving.http.messages import Response, encode
from cumulant.serving.protocol.classification import check_class_count
from cumulant.serving.protocol.json_body import decode_body
from cumulant.serving.protocol.tensors import (
    InferRequest,
    InferResponse,
    InputTensor,
    JsonTensor,
    OutputTensor,
    RequestOutput,
    RequestTensor,
    check_id,
    json_tensor,
    raw_bytes,
)
from cumulant.serving.scheduling.job_queue import Demand, SequencePosition

HEADER_LENGTH = b"inference-header-content-length"
_OCTETS = b"application/octet-stream"
_decode: Callable[[bytes | memoryview], InferRequest] = msgspec.json.Decoder(InferRequest).decode
_UINT64 = 2**64
_MAX_TEXT = 256
_MAX_STEP = 2**62


class InferenceCall(msgspec.Struct):
    """Inference request over any protocol."""

    id: str | None
    inputs: list[InputTensor]
    #: requested outputs; empty: all
    wanted: list[str]
    demand: Demand
    #: outputs to send as raw bytes: by name, and by default
    binary: Mapping[str, bool]
    binary_default: bool = False
    #: outputs to answer with their highest values, and how many of them
    classes: Mapping[str, int] = {}
    #: the parameter `reasons` as it was sent
    reasons: object = None


#: what to send instead of an empty body
_EXPECTED = 'send {"inputs": [{"name": NAME, "shape": [N], "datatype": TYPE, "data": [...]}]}'


def read_call(body: bytes, header_length: bytes | None, *, received: float, client: str) -> InferenceCall:
    """The request in `body`, whose first `header_length` bytes are JSON where raw tensors follow.

    Raises:
        RequestError: it is no such request.
    """
    document, rest = _parts(body, header_length)
    request = decode_body(_decode, document, expected=_EXPECTED)
    inputs = _inputs(request.inputs, rest)
    binary: dict[str, bool] = {}
    classes: dict[str, int] = {}
    for output in request.outputs:
        if output.parameters:
            _read_output(output, binary, classes)
    parameters = request.parameters
    return InferenceCall(
        None if request.id is None else check_id(request.id),
        inputs,
        [output.name for output in request.outputs] if request.outputs else [],
        read_demand(parameters, received, client) if parameters else Demand(None, _USUAL, client) if client else _PLAIN,
        binary,
        parameters.get("binary_data_output") is True,
        classes,
        parameters.get("reasons"),
    )


_PLAIN = Demand()


def _read_output(output: RequestOutput, binary: dict[str, bool], classes: dict[str, int]) -> None:
    refuse_shared_memory(output.name, output.parameters)
    if "binary_data" in output.parameters:
        binary[output.name] = output.parameters["binary_data"] is True
    if "classification" in output.parameters:
        classes[output.name] = check_class_count(output.name, output.parameters["classification"])


def refuse_shared_memory(name: str, parameters: Collection[str]) -> None:
    """Raises RequestError for a tensor in shared memory, which is not supported."""
    if "shared_memory_region" in parameters:
        raise RequestError(
            f'"{name[:100]}" refers to a shared_memory_region: this server has no memory shared with callers',
            subject=name[:100],
            hint="send the values, as binary tensor data where size matters",
        )


def read_demand(parameters: Mapping[str, Any], received: float, client: str) -> Demand:
    """The protocol's parameters `timeout` (microseconds) and `priority` (1 goes first, 0 is the default), and those
    of a sequence.

    Raises:
        RequestError: one of them is no whole number, or negative; or as `sequence_of`.
    """
    for name in ("timeout", "priority"):
        value = parameters.get(name, 0)
        if type(value) is not int or not 0 <= value < _INT64:
            raise RequestError(
                f'the parameter "{name}" must be a whole number of at least 0 and of 64 bits', subject=name
            )
    timeout, priority = parameters.get("timeout", 0), parameters.get("priority", 0)
    turn = sequence_of(parameters) if "sequence_id" in parameters else None
    return Demand(received + timeout / 1e6 if timeout else None, priority or _USUAL, client, turn)


_INT64 = 2**63
#: digits of a length that may be within a body
_DIGITS = 12
#: of a request that names no priority: behind 1 to 99, before 101 and on
_USUAL = 100


def write_answer(
    call: InferenceCall, name: str, version: str, outputs: Sequence[OutputTensor], parameters: Mapping[str, Any]
) -> Response:
    """Response in the requested form, JSON or binary."""
    if not (call.binary or call.binary_default):
        tensors = [json_tensor(output) for output in outputs]
        return Response(200, encode(InferResponse(name, version, tensors, call.id, dict(parameters))))
    tensors, parts = [], []
    for output in outputs:
        if call.binary.get(output.name, call.binary_default):
            parts.append(raw_bytes(output))
            size = {"binary_data_size": len(parts[-1])}
            tensors.append(JsonTensor(output.name, output.datatype, output.shape, size))
        else:
            tensors.append(json_tensor(output))
    document = encode(InferResponse(name, version, tensors, call.id, dict(parameters)))
    if not parts:
        return Response(200, document)
    length = (b"Inference-Header-Content-Length", b"%d" % len(document))
    return Response(200, b"".join((document, *parts)), _OCTETS, (length,))


def _parts(body: bytes, header_length: bytes | None) -> tuple[bytes | memoryview, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    if not header_length.isdigit() or len(header_length) > _DIGITS or int(header_length) > len(body):
        raise RequestError("Inference-Header-Content-Length is no length within the body")
    whole = memoryview(body)
    return whole[: int(header_length)], whole[int(header_length) :]


def _inputs(tensors: Sequence[RequestTensor], rest: memoryview) -> list[InputTensor]:
    at = 0
    inputs: list[InputTensor] = []
    for tensor in tensors:
        size = None
        if tensor.parameters:
            refuse_shared_memory(tensor.name, tensor.parameters)
            size = tensor.parameters.get("binary_data_size")
        if size is not None:
            if type(size) is not int or size < 0 or at + size > len(rest):
                raise RequestError(
                    f'input "{tensor.name}": binary_data_size is no size within the binary part of the body',
                    subject=tensor.name,
                )
            inputs.append(InputTensor(tensor.name, tensor.datatype, tensor.shape, rest[at : at + size]))
            at += size
        elif tensor.data is msgspec.UNSET:
            raise RequestError(f'input "{tensor.name}" has no data', subject=tensor.name)
        else:
            inputs.append(InputTensor(tensor.name, tensor.datatype, tensor.shape, tensor.data))
    if at != len(rest):
        raise RequestError(f"{len(rest) - at} bytes of the binary part of the body belong to no input")
    return inputs


def sequence_of(parameters: Mapping[str, Any]) -> SequencePosition | None:
    """The request's place in a sequence; None where it names none, as 0 and "" do not.

    Raises:
        RequestError: a parameter has a value that it cannot have.
    """
    given = parameters.get("sequence_id", 0)
    starts, ends = (_flag(parameters, name) for name in ("sequence_start", "sequence_end"))
    step = parameters.get("sequence_step")
    if step is not None and (type(step) is not int or not 1 <= step <= _MAX_STEP):
        raise _wrong("sequence_step", "a whole number of at least 1")
    if type(given) is int and 0 <= given < _UINT64:
        return SequencePosition(b"i%d" % given, starts, ends, step) if given else None
    if isinstance(given, str) and len(given) <= _MAX_TEXT and given.isprintable():
        return SequencePosition(b"s" + given.encode(), starts, ends, step) if given else None
    raise _wrong("sequence_id", f"a whole number of 64 bits or a printable text of at most {_MAX_TEXT} characters")


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise _wrong(name, "true or false")
    return value


def _wrong(name: str, expected: str) -> RequestError:
    return RequestError(f'the parameter "{name}" must be {expected}', subject=name)
