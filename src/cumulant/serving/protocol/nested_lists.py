"""Tensors from nested JSON lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cumulant.core.errors import RequestError
from cumulant.serving.protocol.tensors import InputTensor

_MOST_RANK = 32
_KINDS: Mapping[str, tuple[type, ...]] = {"BOOL": (bool,), "BYTES": (str,)}


def input_of_lists(name: str, value: object, datatype: str, shape: Sequence[int]) -> InputTensor:
    """A nested list as a tensor of `datatype`; its shape is that of its first elements, and must hold for all.

    `shape` is what the model takes: it says the sizes within a list that is empty.

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
