"""ONNX graphs in onnxruntime: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import DefinitionError, IntegrityError, OutOfMemoryError, RequestError, missing_part
from cumulant.core.servable import Datatype, TensorSpec
from cumulant.core.system.memory import bounded_memory
from cumulant.servable.bounded_run import run_bounded, run_each_bounded
from cumulant.servable.engine_errors import lacks_memory, plain_message

Array = NDArray[Any]

#: onnxruntime's name of an element -> the protocol's
_DATATYPES: Mapping[str, Datatype] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
#: the protocol's name of an element -> numpy's
DTYPES: Mapping[Datatype, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}


class Engine:
    """A loaded graph. One thread a run; several threads may run it at once. Loading and running an `untried` one are
    bounded.

    Raises:
        IntegrityError: onnxruntime cannot load the graph, or it has an input or output that is no plain tensor.
    """

    def __init__(self, path: Path, *, untried: bool = False) -> None:
        with bounded_memory() if untried else nullcontext():
            self._session = _session(path)
        self.inputs = tuple(_spec(node, path) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node, path) for node in self._session.get_outputs())
        self._names = [spec.name for spec in self.outputs]
        self._untried = untried
        self._run = partial(run_bounded, self._session) if untried else _plain_run(self._session)
        #: the last one: an allocation of the engine's C++ code
        self._refused: tuple[type[Exception], ...] = (*run_errors(), MemoryError)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] = ()) -> list[Array]:
        """Named outputs, all by default, for `feeds` by input name.

        Raises:
            RequestError: the graph cannot take these values, such as a size that does not fit another.
            OutOfMemoryError: the run needs more memory than there is.
            DefinitionError: a run of an untried graph took too long, or too much memory.
        """
        try:
            arrays: list[Array] = self._run(outputs or self._names, feeds)
        except self._refused as error:
            raise self._refusal(error) from None
        return arrays

    def run_each(self, several: Sequence[Mapping[str, Array]]) -> list[list[Array]]:
        """`run` of each feeds, one after the other; many small runs of an untried graph cost less so."""
        if not self._untried:
            return [self.run(feeds) for feeds in several]
        try:
            return run_each_bounded(self._session, self._names, several)
        except self._refused as error:
            raise self._refusal(error) from None

    def _refusal(self, error: Exception) -> DefinitionError | OutOfMemoryError | RequestError:
        if lacks_memory(error):
            message = f"a run of the graph has too little memory: {plain_message(error)}"
            if not self._untried:
                return OutOfMemoryError(message, hint="send fewer rows at a time, or give the process more memory")
            hint = "save a smaller model, use more memory, or give rows that it takes: `package --sample FILE`"
            return DefinitionError(message, hint=hint)
        return RequestError(f"the model cannot take these inputs: {plain_message(error)}")


def _plain_run(session: Any) -> Callable[[Sequence[str], Mapping[str, Array]], list[Array]]:
    """`session.run` without its checks of names, which take a twentieth of a request of one row."""
    inner = getattr(session, "_sess", None)
    return session.run if inner is None else lambda outputs, feeds: inner.run(outputs, feeds, None)


def engine_version() -> str:
    """Version of onnxruntime."""
    import onnxruntime

    release: str = onnxruntime.__version__
    return release


def _spec(node: Any, path: Path) -> TensorSpec:
    element = node.type.removeprefix("tensor(").removesuffix(")")
    if element not in _DATATYPES:
        raise IntegrityError(f"{path}: {node.name} is a {node.type}, not a plain tensor", subject=str(path))
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return TensorSpec(node.name, _DATATYPES[element], shape)


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "onnxruntime", "serve") from None
    options = onnxruntime.SessionOptions()
    # One thread a session: a server scales by processes, and small models lose more by handing over than they win.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # What a graph refuses of a caller's values is answered to the caller, not written to the log.
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _load_errors() as error:
        raise IntegrityError(
            f"{path} is no graph that onnxruntime can run: {plain_message(error)}", subject=str(path)
        ) from None


def _load_errors() -> tuple[type[Exception], ...]:
    """Errors of onnxruntime for a file that it cannot load; they share no base class."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
    return (*(getattr(state, name) for name in names), state.RuntimeException)


def run_errors() -> tuple[type[Exception], ...]:
    """Errors of onnxruntime for values that a graph cannot take."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "NotImplemented")
    return (*(getattr(state, name) for name in names), state.RuntimeException)
