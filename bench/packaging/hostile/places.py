"""What stands where a model file should; archives for `restore`; servables' folders for a server."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from hostile.case import Case, content
from hostile.graphs import network, saved


def _linked(target: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "model.onnx").symlink_to(target)
        return folder / "model.onnx"

    return write


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "model.onnx")
    return folder / "model.onnx"


def _socket(folder: Path) -> Path:
    before = Path.cwd()
    os.chdir(folder)  # a socket's path has 108 bytes at most
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("model.onnx")
    os.chdir(before)
    return folder / "model.onnx"


def _unreadable(folder: Path) -> Path:
    path = saved(network(), folder)
    path.chmod(0)
    return path


def _sparse(size: int, head: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with (folder / "model.onnx").open("wb") as stream:
            stream.write(head)
            stream.truncate(size)
        return folder / "model.onnx"

    return write


def _folder(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "model.onnx" / name).mkdir(parents=True)
        return folder / "model.onnx"

    return write


def _places() -> Iterator[Case]:
    yield content("place: empty file", b"", file="model.onnx")
    yield content("place: one byte", b"\x08", file="model.onnx")
    yield content("place: 1 MiB of zeros", bytes(1 << 20), file="model.onnx")
    yield content("place: HTML", b"<!DOCTYPE html><script>x</script>", file="model.onnx")
    yield content(
        "place: Git LFS pointer",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        file="model.onnx",
    )
    yield content("place: ELF", b"\x7fELF" + bytes(500), file="model.onnx")
    yield content("place: shell script", b'#!/bin/sh\ntouch "$CANARY"\n', file="model.onnx")
    yield content("place: HDF5", b"\x89HDF\r\n\x1a\n" + bytes(500), file="model.h5")
    yield content("place: CatBoost", b"CBM1" + b"\xff" * 500, file="model.cbm")
    yield content("place: GGUF", b"GGUF" + b"\xff" * 500, file="model.gguf")
    for target in (
        "/dev/zero",
        "/dev/urandom",
        "/dev/null",
        "/dev/stdin",
        "missing",
        "model.onnx",
        "/proc/self/mem",
        "/proc/self/environ",
        "/etc",
        "/",
    ):
        yield Case(f"place: link to {target}", _linked(target))
    yield Case("place: FIFO", _fifo)
    yield Case("place: socket", _socket)
    yield Case("place: unreadable file", _unreadable, mutated=os.geteuid() == 0)
    yield Case("place: empty folder", _folder("a"))
    yield Case("place: folder servable.json", _folder("servable.json"))
    yield Case("place: folder MLmodel", _folder("MLmodel"))
    yield Case("place: sparse file of 3 GiB", _sparse(3 << 30, b"\x08\x09"))
    yield Case("place: sparse JSON of 8 TiB", _sparse(8 << 40, b'{"a"'))
    yield Case("place: sparse LightGBM text of 300 MiB", _sparse(300 << 20, b"tree\n"))
    for name in (
        "\x1b[31m.onnx",
        "a\nb.onnx",
        "--out.onnx",
        "<b>.onnx",
        "[red]x.onnx",
        "[bold.onnx",
        "\udcff.onnx",
    ):
        yield content(f"file name: {name!a}", b"\x08\x09junk", file=name)


Member = tuple[tarfile.TarInfo, bytes]


def _member(name: str, raw: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "", **headers: str) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(raw)
    info.pax_headers = headers
    return info, raw


def _manifest(stored: dict[str, bytes], **changes: object) -> Member:
    listed = [
        {"path": path, "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), "modified_ns": 0}
        for path, raw in stored.items()
    ]
    manifest = {
        "format": 1,
        "version": "1",
        "project": "p",
        "environment": "local",
        "created": "2026-01-01T00:00:00Z",
        "head_seq": 0,
        "head_hash": "",
        "files": listed,
    } | changes
    return _member("manifest.json", json.dumps(manifest).encode())


def _tar(*members: Member) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, raw in members:
            tar.addfile(info, io.BytesIO(raw))
    return stream.getvalue()


def _gnu_sparse(real: int) -> bytes:
    """A member of the old GNU form that claims `real` bytes and holds none."""
    info = tarfile.TarInfo("files/cumulant.yaml")
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[156:157] = tarfile.GNUTYPE_SPARSE
    for at, value in ((386, real), (398, 0)):
        raw[at : at + 12] = b"%011o\0" % value if value < 8**11 else b"\x80" + value.to_bytes(11, "big")
    raw[483:495] = b"%011o\0" % real if real < 8**11 else b"\x80" + real.to_bytes(11, "big")
    raw[148:156] = b"        "
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw) + bytes(1024)


def _archives() -> dict[str, bytes | Callable[[], bytes]]:
    paths = (
        "../escape",
        "/tmp/escape",
        "a/../../escape",
        "a\\..\\escape",
        "C:/escape",
        "",
        ".",
        "a//b",
        "a/./b",
        "x" * 5000,
        "\x1b[31m",
    )
    found: dict[str, bytes | Callable[[], bytes]] = {
        f"path {path[:20]!a}": _tar(_member(f"files/{path}"), _manifest({path: b"x"})) for path in paths
    }
    found |= {
        f"member {name!a}": _tar(_member(name), _manifest({name: b"x"}))
        for name in ("escape", "../escape", "/tmp/escape", "files", "files/")
    }
    kinds = {
        "link": tarfile.SYMTYPE,
        "hard link": tarfile.LNKTYPE,
        "character device": tarfile.CHRTYPE,
        "block device": tarfile.BLKTYPE,
        "FIFO": tarfile.FIFOTYPE,
        "folder": tarfile.DIRTYPE,
        "unknown type": b"Z",
    }
    for name, kind in kinds.items():
        found[name] = _tar(
            _member("files/a", b"", kind, "../../escape"), _member("files/a/b"), _manifest({"a/b": b"x"})
        )
    good = _tar(_member("files/a"), _manifest({"a": b"x"}))
    found |= {
        "no manifest": _tar(_member("files/a")),
        "the same file twice": _tar(_member("files/a"), _member("files/a"), _manifest({"a": b"x"})),
        "file and folder": _tar(_member("files/a"), _member("files/a/b"), _manifest({"a": b"x", "a/b": b"x"})),
        "not what the manifest says": _tar(_member("files/a"), _manifest({"a": b"y"})),
        "file that is not listed": _tar(_member("files/a"), _manifest({})),
        "file that is missing": _tar(_manifest({"a": b"x"})),
        "manifest that is no JSON": _tar(_member("manifest.json", b"{" * 100_000)),
        "manifest deep": _tar(_member("manifest.json", b'{"files":' + b"[" * 200_000)),
        "format 99": _tar(_manifest({}, format=99)),
        "time of 2^63": _tar(
            _member("files/a"),
            _manifest(
                {},
                files=[{"path": "a", "bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest(), "modified_ns": 2**63 - 1}],
            ),
        ),
        "PAX size of 2^62": _tar(_member("files/a", size=str(2**62))),
        "PAX size of -1": _tar(_member("files/a", size="-1")),
        "PAX size of text": _tar(_member("files/a", size="x")),
        "PAX path": _tar(_member("files/a", path="../escape")),
        "PAX sparse 1.0": _tar(
            _member(
                "files/a",
                b"1\n0\n99999999999999\n" + bytes(512),
                **{
                    "GNU.sparse.major": "1",
                    "GNU.sparse.minor": "0",
                    "GNU.sparse.realsize": str(2**40),
                    "GNU.sparse.name": "files/a",
                },
            )
        ),
        "sparse file of 8 GiB": _gnu_sparse(8 << 30),
        "sparse file of 2^60": _gnu_sparse(2**60),
        "gzip bomb": lambda: gzip.compress(_tar(_member("files/a", bytes(256 << 20)))[:-10240], mtime=0),
        "gzip bomb as manifest": lambda: gzip.compress(_tar(_member("manifest.json", bytes(256 << 20))), mtime=0),
        "bomb as PAX header": lambda: gzip.compress(_tar(_member("files/a", comment="x" * (256 << 20))), mtime=0),
        "bomb as a name": lambda: gzip.compress(_tar(_member("files/" + "x" * (256 << 20))), mtime=0),
        "gzip cut": gzip.compress(good, mtime=0)[:-20],
        "bzip2 cut": bz2.compress(good)[:-9],
        "xz cut": lzma.compress(good)[:-9],
        "xz damaged": lzma.compress(good * 50)[:60] + bytes(200),
        "bzip2 damaged": bz2.compress(good)[:40] + bytes(200),
        "gzip of text": gzip.compress(b"hello", mtime=0),
        "empty": b"",
        "zeros": bytes(10240),
        "zip": b"PK\x03\x04" + bytes(100),
        "text": b"hello" * 300,
        "20,000 members": lambda: _tar(*[_member(f"files/{n}", b"") for n in range(20_000)]),
    }
    for number in range(8):
        found[f"cut, {number}"] = good[: 100 + (len(good) - 9000) * number // 7]
    for at in (0, 100, 124, 136, 148, 156, 257, 345, 600, 1124):
        found[f"bytes changed at {at}"] = good[:at] + b"\xff\x80\x1b\x00\x39" + good[at + 5 :]
    return found


def _restores() -> Iterator[Case]:
    for name, raw in _archives().items():

        def write(folder: Path, raw: bytes | Callable[[], bytes] = raw) -> Path:
            (folder / "backup.tar").write_bytes(raw if isinstance(raw, bytes) else raw())
            return folder / "backup.tar"

        yield Case(
            f"archive: {name}",
            write,
            command="restore",
            mutated=name.startswith(
                ("bytes changed", "gzip cut", "bzip2 cut", "xz cut", "time of 2^63", "path '\\x1b")
            ),
        )


def _servable(change: Callable[[dict], None] = lambda _: None, raw: bytes | None = None) -> Callable[[Path], Path]:
    """A graph servable whose description is true to its files, after `change`."""

    def write(folder: Path) -> Path:
        path = folder / "servable"
        path.mkdir()
        model = network().SerializeToString() if raw is None else raw
        (path / "model.onnx").write_bytes(model)
        (folder / "secret").write_bytes(b"secret")
        tensor = {"datatype": "FP32", "name": "x", "shape": [-1, 3]}
        described = {
            "format": "cumulant.graph/1",
            "name": "m",
            "inputs": [tensor],
            "outputs": [tensor | {"name": "p", "shape": [-1, 2]}],
            "model": "model.onnx",
            "files": {"model.onnx": hashlib.sha256(model).hexdigest()},
        }
        change(described)
        (path / "servable.json").write_text(json.dumps(described))
        return path

    return write


def _described() -> dict[str, Callable[[dict], None]]:
    secret = hashlib.sha256(b"secret").hexdigest()
    return {
        "model ../secret": lambda d: d.update(model="../secret", files={"../secret": secret}),
        "model absolute": lambda d: d.update(model="/etc/passwd", files={"/etc/passwd": ""}),
        "file ../secret": lambda d: d["files"].update({"../secret": secret}),
        "wrong hash": lambda d: d["files"].update({"model.onnx": "0" * 64}),
        "no hash": lambda d: d.update(files={}),
        "missing file": lambda d: d["files"].update({"weights.bin": secret}),
        "model /dev/zero by link": lambda d: d["files"].update({"\0": secret}),
        "format": lambda d: d.update(format="x"),
        "format of another kind": lambda d: d.update(format=5),
        "inputs text": lambda d: d.update(inputs="x"),
        "shape of 2^62": lambda d: d["inputs"][0].update(shape=[2**62, 2**62]),
        "shape of text": lambda d: d["inputs"][0].update(shape=["x"]),
        "name empty": lambda d: d.update(name=""),
        "name with control characters": lambda d: d.update(name="\x1b[31m\n../../x"),
        "no outputs": lambda d: d.update(outputs=[]),
        "other inputs than the graph": lambda d: d["inputs"][0].update(name="y"),
        "other type than the graph": lambda d: d["inputs"][0].update(datatype="BYTES"),
        "state that is not there": lambda d: d.update(
            state=[{"input": "a", "output": "b", "datatype": "FP32", "shape": [-1, 2]}]
        ),
        "batch size of 2^62": lambda d: d.update(batching={"exact": True, "rows": 2**62, "reason": ""}),
    }


def _trials() -> Iterator[Case]:
    for name, change in _described().items():
        yield Case(
            f"servable: {name}",
            _servable(change),
            command="trial",
            mutated=name.startswith(("name", "batch", "state")),
        )
    for name, raw in {
        "empty": b"",
        "junk": b"\x08\x09junk",
        "pickle": b"\x80\x04cos\nsystem\n.",
        "cut": network().SerializeToString()[:100],
    }.items():
        yield Case(f"servable: model {name}", _servable(raw=raw), command="trial")


def served(cases: Iterator[Case]) -> Iterator[Case]:
    """Graphs of other cases in a servable's folder, as a server is given them."""
    for case in cases:

        def write(folder: Path, case: Case = case) -> Path:
            inner = folder / "source"
            inner.mkdir()
            raw = case.write(inner).read_bytes()
            return _servable(lambda described: described.update(_tensors(raw)), raw=raw)(folder)

        # What refuses every row, or answers oddly, does no harm; what takes time or memory has to be refused.
        harmless = not case.name.startswith("run: ") or case.name in _REFUSES_ROWS
        yield Case(f"served {case.name}", write, command="trial", mutated=harmless)


#: a made-up row is refused, and so is every row of a caller
_REFUSES_ROWS = ("run: Gather out of range", "run: Reshape that does not fit", "run: convolution of 2^40", "run: Tile")


def _tensors(raw: bytes) -> dict[str, object]:
    """The inputs and outputs of a graph as a description tells them; none where it cannot be read."""
    try:
        graph = onnx.load_model_from_string(raw).graph
        constants = {one.name for one in graph.initializer}
        inputs = [_tensor(one) for one in graph.input if one.name not in constants]
        return {"inputs": inputs, "outputs": [_tensor(one) for one in graph.output]}
    except (DecodeError, KeyError, UnicodeDecodeError):
        return {}


def _tensor(one: Any) -> dict[str, object]:
    names = {
        TensorProto.FLOAT: "FP32",
        TensorProto.DOUBLE: "FP64",
        TensorProto.INT64: "INT64",
        TensorProto.STRING: "BYTES",
    }
    tensor = one.type.tensor_type
    sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim]
    shape = [size if size >= 0 else -1 for size in sizes]
    return {"datatype": names[tensor.elem_type], "name": one.name, "shape": shape}


def cases() -> Iterator[Case]:
    yield from _places()
    yield from _restores()
    yield from _trials()
