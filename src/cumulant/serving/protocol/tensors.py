"""Tensors of the Open Inference Protocol v2: JSON, raw bytes, typed lists, and numpy arrays."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from cumulant.core.errors import RequestError
from cumulant.core.servable import TensorSpec
from cumulant.core.traffic import LONGEST_ID
from cumulant.servable.engine import DTYPES, Array
from cumulant.serving.prediction_log.entry import STRUCT_CODES
from cumulant.serving.protocol.json_body import decode_json, is_out_of_range, out_of_range

_MAX_RANK = 8
#: bounds of what can be a size, and a number of values: beyond, neither numpy nor a message can show them
_MAX_SIZE, _MAX_COUNT = 2**62, 2**60
_FLOATS = frozenset({"FP16", "FP32", "FP64"})
_DTYPES: Mapping[str, np.dtype[Any]] = {str(name): dtype for name, dtype in DTYPES.items()}
_LENGTH = struct.Struct("<I")
#: values read in one call: a longer one would block every other thread
PIECE = 16 * 1024
#: raw tensors are little-endian, whatever the machine is
_WIRE: Mapping[str, np.dtype[Any]] = {
    name: dtype.newbyteorder("<") for name, dtype in DTYPES.items() if dtype != np.dtype(np.object_)
}
_decode_floats = msgspec.json.Decoder(list[float]).decode
_DECODERS: Mapping[str, Callable[[bytes], list[Any]]] = {
    **dict.fromkeys(DTYPES, msgspec.json.Decoder(list[int]).decode),
    **dict.fromkeys(_FLOATS, _decode_floats),
    "BOOL": msgspec.json.Decoder(list[bool]).decode,
    "BYTES": msgspec.json.Decoder(list[str]).decode,
}

#: types of JSON values by datatype; numbers for the others
_KINDS: Mapping[str, tuple[type, ...]] = {"BOOL": (bool,), "BYTES": (str,)}
#: JSON text, raw little-endian bytes, or values in row-major order
Content = msgspec.Raw | memoryview | list[Any]
_MOST_RANK = 32


class RequestTensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] = {}


class RequestOutput(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    inputs: list[RequestTensor]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[RequestOutput] = []


class InputTensor(msgspec.Struct, gc=False):
    """Tensor of a request over any protocol."""

    name: str
    datatype: str
    shape: Sequence[int]
    content: Content


class OutputTensor(msgspec.Struct, gc=False):
    """Tensor of an answer; `values` in row-major order, an array or a list."""

    name: str
    datatype: str
    shape: Sequence[int]
    values: Array | list[Any]


class JsonTensor(msgspec.Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: Sequence[int]
    parameters: dict[str, int] = {}
    data: list[Any] | msgspec.UnsetType = msgspec.UNSET


class InferResponse(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[JsonTensor]
    id: str | None = None
    parameters: dict[str, Any] = {}


def to_array(tensor: InputTensor) -> Array:
    """The values of a tensor as an array [n] of its datatype; `n` follows from its shape.

    Raises:
        RequestError: an unknown datatype, a shape or values that do not fit.
    """
    name, datatype = tensor.name, tensor.datatype
    if datatype not in _DTYPES:
        raise RequestError(f'input "{name}" has the unknown datatype {datatype[:20]}', subject=name)
    count = _count(tensor)
    content = tensor.content
    if isinstance(content, memoryview):
        array = _from_bytes(content, datatype, name, count)
    else:
        values = _json_values(content, datatype, name) if isinstance(content, msgspec.Raw) else content
        array = _from_list(values, datatype, name)
    if len(array) != count:
        raise _wrong_count(tensor, len(array), count)
    return array


def to_list(tensor: InputTensor) -> list[Any]:
    """The values of a tensor as a list, with None for JSON's null.

    Raises:
        RequestError: as `to_array`; values of JSON are checked for their number only.
    """
    content = tensor.content
    if isinstance(content, memoryview):
        return to_array(tensor).tolist()  # type: ignore[no-any-return]
    values = _flat(_decoded_list(content, tensor.name), tensor.name) if isinstance(content, msgspec.Raw) else content
    count = _count(tensor)
    if len(values) != count:
        raise _wrong_count(tensor, len(values), count)
    return values


#: datatypes whose every value another one has
_NARROWER: Mapping[str, frozenset[str]] = {"FP64": frozenset({"FP32", "FP16"}), "FP32": frozenset({"FP16"})}


class TensorConverter:
    """Turns a tensor into an array of the datatype, and of a shape, that `spec` allows.

    Narrower floats are widened, which changes no value: clients mostly send FP32, and some tree models read FP64.
    """

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._datatype, self._rank = spec.datatype, len(spec.shape)
        self._dtype, self._narrower = DTYPES[spec.datatype], _NARROWER.get(spec.datatype, frozenset())
        #: sizes that are fixed, by place
        self._fixed = [(place, size) for place, size in enumerate(spec.shape) if size != -1]

    def __call__(self, tensor: InputTensor) -> Array:
        """The array.

        Raises:
            RequestError: the tensor does not fit, naming what was expected.
        """
        shape = tensor.shape
        if tensor.datatype != self._datatype and tensor.datatype not in self._narrower:
            raise self._unfit(tensor, f"datatype {tensor.datatype[:20]}", self._datatype)
        if len(shape) != self._rank:
            raise self._unfit(tensor, f"shape {show_shape(shape)}", show_shape(self._spec.shape))
        for place, size in self._fixed:
            if shape[place] != size:
                raise self._unfit(tensor, f"shape {show_shape(shape)}", show_shape(self._spec.shape))
        array = to_array(tensor)
        return (array if tensor.datatype == self._datatype else array.astype(self._dtype)).reshape(shape)

    def _unfit(self, tensor: InputTensor, got: str, expected: str) -> RequestError:
        return RequestError(f'input "{tensor.name}" has {got}, expected {expected}', subject=tensor.name)


def raw_bytes(tensor: OutputTensor) -> bytes:
    """Values in the binary format: little-endian; each text after its length."""
    if tensor.datatype != "BYTES":
        wire = _WIRE[tensor.datatype]
        return np.asarray(tensor.values, dtype=wire).tobytes()
    flat = tensor.values.ravel().tolist() if isinstance(tensor.values, np.ndarray) else tensor.values
    parts: list[bytes] = []
    for text in flat:
        encoded = text if isinstance(text, bytes) else str(text).encode()
        parts += (_LENGTH.pack(len(encoded)), encoded)
    return b"".join(parts)


def json_tensor(tensor: OutputTensor) -> JsonTensor:
    """Tensor in JSON format: values in row-major order."""
    flat = tensor.values.ravel().tolist() if isinstance(tensor.values, np.ndarray) else tensor.values
    return JsonTensor(tensor.name, tensor.datatype, tensor.shape, data=flat)


def show_shape(shape: Sequence[int]) -> str:
    return f"[{', '.join(str(size)[:20] for size in shape[:_MAX_RANK])}{', ...' if len(shape) > _MAX_RANK else ''}]"


def check_id(request_id: str | None) -> str | None:
    if request_id is not None and len(request_id) > LONGEST_ID:
        raise RequestError(f"the id is longer than {LONGEST_ID} characters")
    return request_id


def _count(tensor: InputTensor) -> int:
    shape = tensor.shape
    if len(shape) > 32 or (shape and (min(shape) < 0 or max(shape) > _MAX_SIZE)):
        raise _no_shape(tensor)
    count = math.prod(shape)
    if count == 0 and math.prod(size for size in shape if size) > _MAX_COUNT:
        raise _no_shape(tensor)  # empty, and still too large for numpy
    return count


def _no_shape(tensor: InputTensor) -> RequestError:
    return RequestError(
        f'input "{tensor.name}" has shape {show_shape(tensor.shape)}, which no tensor has', subject=tensor.name
    )


def _wrong_count(tensor: InputTensor, given: int, count: int) -> RequestError:
    return RequestError(
        f'input "{tensor.name}" has {given} values where its shape {show_shape(tensor.shape)} needs {count}',
        subject=tensor.name,
    )


def _json_values(raw: msgspec.Raw, datatype: str, name: str) -> list[Any]:
    """A flat list is the quick way; a nested one is flattened and checked again."""
    try:
        return _DECODERS[datatype](raw)
    except msgspec.ValidationError:
        flat = _flat(_decoded_list(raw, name), name)
    except RecursionError:
        raise RequestError(f'the data of input "{name}" are nested unevenly or too deeply', subject=name) from None
    allowed = _KINDS.get(datatype, (int, float) if datatype in _FLOATS else (int,))
    for value in flat:
        if type(value) not in allowed:
            raise RequestError(f'input "{name}" has a value that is no {datatype}', subject=name)
    return flat


def _decoded_list(raw: msgspec.Raw, name: str) -> list[Any]:
    try:
        values = decode_json(raw)
    except RecursionError:
        raise RequestError(f'the data of input "{name}" are nested unevenly or too deeply', subject=name) from None
    except msgspec.DecodeError as error:
        if is_out_of_range(error):
            raise out_of_range(name) from None
        raise RequestError(f'the data of input "{name}" cannot be read: {error}', subject=name) from None
    if not isinstance(values, list):
        raise RequestError(f'the data of input "{name}" are no list', subject=name)
    return values


def _flat(data: list[Any], name: str) -> list[Any]:
    """Nested lists in row-major order; a tensor may be sent flat or nested."""
    for _ in range(_MAX_RANK):
        if not any(isinstance(value, list) for value in data):
            return data
        if not all(isinstance(value, list) for value in data):
            break
        data = [inner for value in data for inner in value]
    raise RequestError(f'the data of input "{name}" are nested unevenly or too deeply', subject=name)


def _from_list(values: list[Any], datatype: str, name: str) -> Array:
    if len(values) > PIECE:
        parts = [_from_list(values[at : at + PIECE], datatype, name) for at in range(0, len(values), PIECE)]
        return np.concatenate(parts)
    if datatype == "BYTES":
        array = np.empty(len(values), dtype=np.object_)
        array[:] = [decode_text(value, name) for value in values] if values and isinstance(values[0], bytes) else values
        return array
    try:
        # Quicker than `np.array`, and unlike it refuses what the datatype cannot hold.
        packed = struct.pack(f"<{len(values)}{STRUCT_CODES[datatype]}", *values)
    except (struct.error, OverflowError, TypeError):
        raise RequestError(f'input "{name}" has a value that is no {datatype}', subject=name) from None
    return np.frombuffer(packed, dtype=_WIRE[datatype])


def _from_bytes(content: memoryview, datatype: str, name: str, count: int) -> Array:
    if datatype == "BYTES":
        return _texts(content, name)
    wire = _WIRE[datatype]
    if len(content) != count * wire.itemsize:
        raise RequestError(
            f'input "{name}" has {len(content)} bytes where its shape needs {count * wire.itemsize}', subject=name
        )
    if datatype == "BOOL":
        return np.frombuffer(content, dtype=np.uint8).astype(np.bool_)
    whole: Array = np.frombuffer(content, dtype=wire)
    return whole.astype(_DTYPES[datatype], copy=False)


def _texts(content: memoryview, name: str) -> Array:
    texts: list[str] = []
    at, end = 0, len(content)
    while at < end:
        if at + 4 > end:
            raise RequestError(f'input "{name}" ends within the length of a text', subject=name)
        (size,) = _LENGTH.unpack_from(content, at)
        at += 4
        if at + size > end:
            raise RequestError(f'input "{name}" has a text that is longer than its bytes', subject=name)
        texts.append(decode_text(bytes(content[at : at + size]), name))
        at += size
    array = np.empty(len(texts), dtype=np.object_)
    array[:] = texts
    return array


def decode_text(value: bytes, name: str) -> str:
    """An element of the input `name` as text. Raises RequestError."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise RequestError(f'input "{name}" has bytes that are no UTF-8 text', subject=name) from None


def input_of_lists(name: str, value: object, datatype: str, shape: Sequence[int]) -> InputTensor:
    """A nested list as a tensor of `datatype`; its shape is that of its first elements, and must hold for all.

    `shape` is what the model takes: it gives the sizes within an empty list.

    Raises:
        RequestError: lists of different lengths, or a value of another type.
    """
    sizes: list[int] = [len(value)] if isinstance(value, list) else []
    flat: list[Any] = value if isinstance(value, list) else [value]
    while flat and isinstance(flat[0], list) and len(sizes) < _MOST_RANK:
        size = len(flat[0])
        if any(not isinstance(element, list) or len(element) != size for element in flat):
            raise RequestError(f'the data of input "{name[:100]}" are nested unevenly', subject=name[:100])
        sizes.append(size)
        flat = [inner for element in flat for inner in element]
    if not flat:
        sizes += [max(size, 0) for size in shape[len(sizes) :]]
    kinds = _KINDS.get(datatype, (int, float))
    if any(type(element) not in kinds for element in flat):
        raise RequestError(f'input "{name[:100]}" has a value that is no {datatype}', subject=name[:100])
    return InputTensor(name, datatype, sizes, flat)
