"""Encoding of `ModelInfer`: a message to a `GrpcCall`, and outputs to a message."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from cumulant.core.errors import RequestError
from cumulant.servable.engine import Array
from cumulant.serving.endpoints.request_bodies import LARGE
from cumulant.serving.grpc.messages import field_number, message_class
from cumulant.serving.protocol.classification import check_class_count
from cumulant.serving.protocol.inference import InferenceCall, read_demand, refuse_shared_memory
from cumulant.serving.protocol.tensors import PIECE, InputTensor, OutputTensor, check_id, decode_text, raw_bytes
from cumulant.serving.scheduling.job_queue import Demand

_Request = message_class("ModelInferRequest")
_Response = message_class("ModelInferResponse")
_StreamResponse = message_class("ModelStreamInferResponse")
_parse: Callable[[bytes], Any] = _Request.FromString
_RAW_INPUT = field_number("ModelInferRequest", "raw_input_contents")
_RAW_OUTPUT = field_number("ModelInferResponse", "raw_output_contents")
#: how the content of a field is written
_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED: Mapping[int, int] = {1: 8, 5: 4}
_RAW_TENSOR = _RAW_INPUT << 3 | _LENGTH_DELIMITED
_NESTED = frozenset(field_number("ModelInferRequest", name) << 3 | _LENGTH_DELIMITED for name in ("inputs", "outputs"))
#: an empty input has two bytes in a message, and takes a hundred and much time when values are made of it; so does a
#: parameter of an input
_MOST_FIELDS = 10_000
#: name, datatype, shape and contents of an input: what else it holds counts as a field of the message
_PLAIN_FIELDS = 4
_NO_MESSAGE = "the request is no message of this method"
#: a number without end would never be read whole
_VARINT_BITS = 63
#: from this size on, raw tensors are taken out of the message without a copy; below, that costs more than it saves
_LARGE = 16 * 1024

#: the field of `InferTensorContents` that holds values of a datatype
_FIELDS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_PLAIN = Demand()


class GrpcCall(InferenceCall):
    """Inference request over gRPC. `typed`: its tensors came as typed values, and the answer has typed values too."""

    typed: bool = False
    #: the caller counts answers of a stream
    final: bool = False


def parsed(parse: Callable[[bytes], Any], body: bytes) -> Any:
    """`body` by `parse`.

    Raises:
        RequestError: it is no such message.
    """
    try:
        return parse(body)
    except DecodeError:
        raise RequestError(_NO_MESSAGE) from None


def read_message(body: bytes) -> tuple[Any, Sequence[memoryview]]:
    """The `ModelInferRequest` in `body`, and its raw tensors.

    Raises:
        RequestError: it is no such message.
    """
    if len(body) < _LARGE:
        message = parsed(_parse, body)
        return message, [memoryview(raw) for raw in message.raw_input_contents]
    head, raws = _without_raw(body)
    return parsed(_parse, head), raws


def is_large(message: Any, raws: Sequence[memoryview], size: int) -> bool:
    """Whether so much of a message of `size` bytes are typed values, or raw texts, that reading them would hold up
    other requests; raw numbers are taken as they lie there.
    """
    if size <= LARGE:
        return False
    raw = sum(map(len, raws))
    return size - raw > LARGE or (raw > LARGE and any(tensor.datatype == "BYTES" for tensor in message.inputs))


def read_call(
    message: Any, raws: Sequence[memoryview], *, received: float, remaining: float | None, client: str
) -> GrpcCall:
    """The request as a call; `remaining`: seconds until the caller's deadline, None: it has none.

    Raises:
        RequestError: it is no such request.
    """
    parameters = {name: _value(value) for name, value in message.parameters.items()} if message.parameters else {}
    wanted = [str(output.name) for output in message.outputs]
    classes: dict[str, int] = {}
    for output in message.outputs:
        if output.parameters:
            _read_output(output, classes)
    inputs = _inputs(message.inputs, raws)
    return GrpcCall(
        check_id(message.id) or None,
        inputs,
        wanted,
        _demand(parameters, received, remaining, client),
        {},
        classes=classes,
        reasons=parameters.get("reasons"),
        typed=bool(inputs) and not raws,
        final=parameters.get("triton_enable_empty_final_response") is True,
    )


def write_answer(
    call: GrpcCall, name: str, version: str, outputs: Sequence[OutputTensor], parameters: Mapping[str, Any]
) -> bytes:
    """Encoded response, typed or raw as the call's inputs; raw tensors are appended, which copies them once."""
    answer = _Response(model_name=name, model_version=version, id=call.id)
    for key, value in parameters.items():
        field = "string_param" if isinstance(value, str) else "double_param"
        setattr(answer.parameters[key], field, value)
    if call.final:
        answer.parameters["triton_final_response"].bool_param = True
    add = answer.outputs.add
    if call.typed and all(output.datatype in _FIELDS for output in outputs):
        for output in outputs:
            contents = add(name=output.name, datatype=output.datatype, shape=output.shape).contents
            getattr(contents, _FIELDS[output.datatype]).extend(_listed(output))
        return answer.SerializeToString()  # type: ignore[no-any-return]
    for output in outputs:
        add(name=output.name, datatype=output.datatype, shape=output.shape)
    parts: list[bytes] = [answer.SerializeToString()]
    for output in outputs:
        raw = raw_bytes(output)
        parts += (_RAW_TAG, _varint(len(raw)), raw)
    return b"".join(parts)


def stream_answer(answer: bytes) -> bytes:
    """Encoded response as one of a stream."""
    return b"".join((_STREAM_TAG, _varint(len(answer)), answer))


def stream_error(text: str, message: Any) -> bytes:
    """Response of a stream to `message` (None: not readable), which is refused because of `text`."""
    response = _StreamResponse(error_message=text)
    if message is not None:
        response.infer_response.id, response.infer_response.model_name = message.id, message.model_name
    return response.SerializeToString()  # type: ignore[no-any-return]


def _inputs(tensors: Any, raws: Sequence[memoryview]) -> list[InputTensor]:
    """Inputs: each has its values with it, or is the next of the raw ones."""
    inputs: list[InputTensor] = []
    at, count = 0, len(raws)
    for tensor in tensors:
        if tensor.parameters:
            refuse_shared_memory(tensor.name, tensor.parameters)
        name, datatype, shape = tensor.name, tensor.datatype, list(tensor.shape)
        if at < count and not tensor.HasField("contents"):
            inputs.append(InputTensor(name, datatype, shape, raws[at]))
            at += 1
        else:
            inputs.append(InputTensor(name, datatype, shape, _values(tensor)))
    if at < count:
        raise RequestError(f"raw_input_contents has {count} parts where {at} inputs come without contents")
    return inputs


def _values(tensor: Any) -> list[Any]:
    """Typed values; those of other fields than the datatype's are refused, since they would be lost."""
    name, datatype = tensor.name, tensor.datatype
    field = _FIELDS.get(datatype)
    if field is None:
        if datatype == "FP16":
            raise RequestError(f'input "{name}" is FP16, which comes in raw_input_contents only', subject=name)
        return []  # refused where the tensor is read, with the same message as over HTTP
    stray = next((other.name for other, _ in tensor.contents.ListFields() if other.name != field), None)
    if stray is not None:
        raise RequestError(f'input "{name}" has {stray} where {datatype} comes in {field}', subject=name)
    given = getattr(tensor.contents, field)
    # Piece by piece: one long call would block every other thread.
    values = [value for at in range(0, len(given), PIECE) for value in given[at : at + PIECE]]
    return [decode_text(value, name) for value in values] if datatype == "BYTES" else values


def _listed(output: OutputTensor) -> list[Any]:
    values: Array | list[Any] = output.values
    flat = values if isinstance(values, list) else values.ravel().tolist()
    if output.datatype == "BYTES":
        return [value if isinstance(value, bytes) else str(value).encode() for value in flat]
    return flat


def _read_output(output: Any, classes: dict[str, int]) -> None:
    refuse_shared_memory(output.name, output.parameters)
    if "classification" in output.parameters:
        classes[output.name] = check_class_count(output.name, _value(output.parameters["classification"]))


def _value(parameter: Any) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def _demand(parameters: Mapping[str, Any], received: float, remaining: float | None, client: str) -> Demand:
    """As over HTTP; what ends first counts, the parameter `timeout` or the call's deadline."""
    demand = read_demand(parameters, received, client) if parameters or client else _PLAIN
    if remaining is None:
        return demand
    deadline = time.perf_counter() + remaining
    first = deadline if demand.deadline is None else min(deadline, demand.deadline)
    return Demand(first, demand.priority, demand.client, demand.turn)


def _without_raw(body: bytes) -> tuple[bytes, list[memoryview]]:
    """The message without its raw tensors, and those; its fields are counted first. Raises RequestError."""
    whole, at, start, end = memoryview(body), 0, 0, len(body)
    heads: list[memoryview] = []
    raws: list[memoryview] = []
    count = 0
    while count < _MOST_FIELDS:
        if at == end:
            heads.append(whole[start:end])
            return b"".join(heads), raws
        begin = at
        tag, at, size = _field(body, at)
        if tag == _RAW_TENSOR:
            heads.append(whole[start:begin])
            raws.append(whole[at : at + size])
            start = at + size
        if at + size > end:
            raise RequestError(_NO_MESSAGE)
        more = _count_fields(body, at, at + size, _MOST_FIELDS - count) - _PLAIN_FIELDS if tag in _NESTED else 0
        count += 1 + max(more, 0)
        at += size
    raise RequestError(f"the message has more than {_MOST_FIELDS} inputs, outputs, parameters and raw tensors")


def _count_fields(body: bytes, at: int, end: int, most: int) -> int:
    """The fields of a part of a message, counted up to `most` and the plain ones. Raises RequestError."""
    count = 0
    while at < end and count < most + _PLAIN_FIELDS:
        _, at, size = _field(body, at)
        at += size
        count += 1
    if at > end:
        raise RequestError(_NO_MESSAGE)
    return count


def _field(body: bytes, at: int) -> tuple[int, int, int]:
    """The tag of a field, and where and how long its content is."""
    try:
        tag, at = _read_varint(body, at)
        if tag & 7 == _LENGTH_DELIMITED:
            size, at = _read_varint(body, at)
        elif tag & 7 == _VARINT:
            size, at = 0, _read_varint(body, at)[1]
        else:
            size = _FIXED[tag & 7]
    except (IndexError, KeyError):
        raise RequestError(_NO_MESSAGE) from None
    return tag, at, size


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    """Raises IndexError for one that ends with the body, or is longer than any is."""
    value = shift = 0
    while (byte := body[at]) >= 0x80:
        if shift >= _VARINT_BITS:
            raise IndexError
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return value | byte << shift, at + 1


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_RAW_TAG = bytes([_RAW_OUTPUT << 3 | _LENGTH_DELIMITED])
_STREAM_TAG = bytes([field_number("ModelStreamInferResponse", "infer_response") << 3 | _LENGTH_DELIMITED])
