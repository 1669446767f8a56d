"""Pickles that run code when they are read, in every wrapper that a model file comes in, under any suffix.

Each payload makes the file that the environment variable CANARY names; nothing may ever make it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from hostile.case import Case, content

_SHELL = 'touch "$CANARY"'
_PYTHON = "import os; open(os.environ['CANARY'], 'w')"


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def _short(value: str) -> bytes:
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


class _Reduce:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._made = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._made


def payloads() -> dict[str, bytes]:
    """Opcodes by what they do."""
    call = _text(_SHELL) + b"\x85R."
    return {
        "GLOBAL os.system": b"\x80\x02cos\nsystem\n" + call,
        "GLOBAL posix.system": b"\x80\x02cposix\nsystem\n" + call,
        "protocol 0": b"cos\nsystem\n(V" + _SHELL.encode() + b"\ntR.",
        "INST": b"(V" + _SHELL.encode() + b"\nios\nsystem\n.",
        "OBJ": b"\x80\x02(cos\nsystem\n" + _text(_SHELL) + b"o.",
        "STACK_GLOBAL": b"\x80\x04" + _short("os") + _short("system") + b"\x93" + _short(_SHELL) + b"\x85R.",
        "builtins.exec": b"\x80\x02cbuiltins\nexec\n" + _text(_PYTHON) + b"\x85R.",
        "builtins.eval": b"\x80\x03cbuiltins\neval\n"
        + _text("open(__import__('os').environ['CANARY'],'w')")
        + b"\x85R.",
        "subprocess": b"\x80\x02csubprocess\ngetoutput\n" + call,
        "framed protocol 5": pickle.dumps(_Reduce(exec, _PYTHON), 5),
        "hidden in a list": pickle.dumps([1, {"model": [_Reduce(exec, _PYTHON)]}, "x" * 5000], 4),
        "state of an estimator": b"\x80\x02csklearn.linear_model._base\nLinearRegression\n)\x81}"
        + _text("coef_")
        + b"cos\nsystem\n"
        + _text(_SHELL)
        + b"\x85Rsb.",
        "cloudpickle function": _cloudpickle(),
        "after 8 KiB of text": b"\x80\x02" + _text("a" * 8192) + b"0cos\nsystem\n" + call,
        "EXT opcode": b"\x80\x02\x82\x01" + call,
        "memo bomb": b"\x80\x02" + b"]q\x00" + b"".join(b"(h\x00h\x00lq" + bytes([n]) for n in range(1, 30)) + b".",
        "length of 2^63": b"\x80\x04\x8d" + (2**63 - 1).to_bytes(8, "little") + b"x.",
        "nothing but its mark": b"\x80\x05",
    }


def _cloudpickle() -> bytes:
    """A function by value, as cloudpickle writes one: its code object, and a call of it."""
    return pickle.dumps(_Reduce(eval, "(lambda: open(__import__('os').environ['CANARY'], 'w'))()"), 4)


def _zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, raw in members.items():
            file.writestr(zipfile.ZipInfo(name), raw)
    return stream.getvalue()


def _tar(name: str, raw: bytes, mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as file:
        info = tarfile.TarInfo(name)
        info.size = len(raw)
        file.addfile(info, io.BytesIO(raw))
    return stream.getvalue()


def _npy(raw: bytes) -> bytes:
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    head += b" " * (63 - (10 + len(head)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + raw


WRAPPERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "plain": ("model.pkl", bytes),
    "gzip": ("model.pkl.gz", lambda raw: gzip.compress(raw, mtime=0)),
    "bzip2": ("model.joblib", bz2.compress),
    "xz": ("model.joblib", lzma.compress),
    "lzma": ("model.lzma", lambda raw: lzma.compress(raw, lzma.FORMAT_ALONE)),
    "zlib": ("model.joblib", zlib.compress),
    "lz4 mark": ("model.joblib", lambda raw: b"\x04\x22M\x18" + raw),
    "torch zip": ("model.pt", lambda raw: _zip({"archive/data.pkl": raw, "archive/version": b"3\n"})),
    "torch zip as onnx": ("model.onnx", lambda raw: _zip({"archive/data.pkl": raw})),
    "torch tar": ("model.pth", lambda raw: _tar("pickle", raw)),
    "zip with traversal": ("model.zip", lambda raw: _zip({"../../canary": raw, "/tmp/canary": raw})),
    "skops zip": ("model.skops", lambda raw: _zip({"schema.json": b"{}", "data.pkl": raw})),
    "npy": ("model.npy", _npy),
    "npz": ("model.npz", lambda raw: _zip({"arr_0.npy": _npy(raw)})),
    "as onnx": ("model.onnx", bytes),
    "as LightGBM": ("model.txt", bytes),
    "as XGBoost": ("model.ubj", bytes),
    "behind an ONNX byte": ("model.onnx", lambda raw: b"\x08\x08" + raw),
    "behind a LightGBM line": ("model.txt", lambda raw: b"tree\n" + raw),
    "behind a JSON brace": ("model.json", lambda raw: b'{"a":"' + raw),
    "behind a UBJSON brace": ("model.ubj", lambda raw: b"{L\0\0\0\0\0\0\0\x01" + raw),
}


def _mlflow(flavour: str, raw: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        model = folder / "model"
        model.mkdir()
        (model / "model.pkl").write_bytes(raw)
        key = {"sklearn": "pickled_model", "python_function": "model_path"}.get(flavour, "data")
        (model / "MLmodel").write_text(f"flavors:\n  {flavour}:\n    {key}: model.pkl\n    loader_module: os\n")
        return model

    return write


def _yaml(text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        model = folder / "model"
        model.mkdir()
        (folder / "secret.txt").write_text("tree\n")
        (model / "MLmodel").write_text(text)
        return model

    return write


def _sample(file: str, raw: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        from hostile.graphs import network, saved

        (folder / file).write_bytes(raw)
        return saved(network(), folder)

    return write


def cases() -> Iterator[Case]:
    """Every payload plain; the first two in every wrapper; folders of MLflow; samples that hold pickles."""
    every = payloads()
    first = [*list(every.items())[:2], ("framed protocol 5", every["framed protocol 5"])]
    for name, raw in every.items():
        yield content(f"pickle: {name}", raw, file="model.pkl")
        yield content(f"pickle: {name}, compressed", zlib.compress(raw), file="model.joblib")
    for wrapper, (file, wrap) in list(WRAPPERS.items())[1:]:
        for name, raw in first:
            yield content(f"pickle: {name}, {wrapper}", wrap(raw), file=file)
    raw = every["GLOBAL os.system"]
    for flavour in ("sklearn", "python_function", "onnx", "lightgbm", "xgboost"):
        yield Case(f"MLflow folder: pickle as {flavour}", _mlflow(flavour, raw))
    for name, text in {
        "python tag": "flavors: !!python/object/apply:os.system ['touch \"$CANARY\"']\n",
        "parent folder": "flavors:\n  lightgbm:\n    data: ../secret.txt\n",
        "absolute path": "flavors:\n  lightgbm:\n    data: /etc/passwd\n",
        "entity bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
        "deep": "flavors: " + "[" * 5000,
        "control characters": 'flavors: {"\\e[31m\\a": {"data": 1}}\n',
        "NUL in a path": 'flavors: {lightgbm: {data: "a\\0b"}}\n',
        "long path": "flavors: {lightgbm: {data: " + "a" * 5000 + "}}\n",
        "merge of itself": "flavors: &a\n  lightgbm: *a\n",
    }.items():
        yield Case(f"MLflow folder: {name}", _yaml(text))
    for file, raw_sample in {
        "rows.npy": _npy(raw),
        "rows.npz": _zip({"x.npy": _npy(raw)}),
        "rows.pkl": raw,
        "rows.parquet": raw,
        "rows.csv": b"\0" * 1000 + raw,
        "big.npy": _npy(b"").replace(b"|O", b"<f4").replace(b"(1,)", b"(9999999999,)"),
        "cut.npz": _zip({"x.npy": _npy(raw)})[:-30],
    }.items():
        yield Case(f"sample: {file}", _sample(file, raw_sample), words=("--sample", "{folder}/" + file))
