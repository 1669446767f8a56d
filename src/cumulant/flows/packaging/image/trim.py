"""Run while an image is built, by the base's own Python: `trim.py ROOT`, with the packages in ROOT/app.

Removes from ROOT/app what the data plane never loads, and copies to ROOT what it needs of the system, with one date.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from py_compile import PycInvalidationMode

#: of the packages, what no server loads. The extension module of onnxruntime holds the engine itself: the library
#: beside it is for programs in C. pyarrow's extensions need all of its libraries but those of encryption.
UNUSED = (
    "bin",
    "**/__pycache__",
    "**/tests",
    "**/*.pyi",
    "**/*.pxd",
    "**/*.pyx",
    "**/*.pxi",
    "cumulant/datasets",
    "cumulant/testing",
    "numpy/_core/include",
    "numpy/_core/lib",
    "numpy/_core/_simd.*",
    "numpy/_core/*_tests.*",
    "numpy/distutils",
    "numpy/f2py",
    "numpy/testing",
    "onnxruntime/backend",
    "onnxruntime/capi/libonnxruntime.so*",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    "pyarrow/*flight*",
    "pyarrow/*parquet_encryption*",
    "pyarrow/_azurefs*",
    "pyarrow/_dataset_orc*",
    "pyarrow/_gcsfs*",
    "pyarrow/_hdfs*",
    "pyarrow/_orc*",
    "pyarrow/_pyarrow_cpp_tests*",
    "pyarrow/_s3fs*",
    "pyarrow/_substrait*",
    "pyarrow/include",
    "pyarrow/includes",
    "pyarrow/lib*_s3*",
    "pyarrow/lib*_azure*",
    "pyarrow/lib*_gcs*",
    "pyarrow/libarrow_python.so",
    "pyarrow/libarrow_python.so.*.*",
    "pyarrow/src",
    "pygments/lexers/[!_]*",
)
#: of Python's own library
_NO_LIBRARY = shutil.ignore_patterns(
    "__pycache__",
    "site-packages",
    "dist-packages",
    "config-*",
    "*.a",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "test",
    "tests",
    "tkinter",
    "turtle*",
    "venv",
    "distutils",
    "_curses*",
    "_dbm*",
    "_gdbm*",
    "_test*",
    "_tkinter*",
    "nis.*",
    "readline.*",
    "xxlimited*",
)
_SYSTEM = (
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/openssl.cnf",
    "/usr/lib/locale/C.utf8",
    "/usr/lib/ssl/cert.pem",
    "/usr/lib/ssl/openssl.cnf",
    "/usr/share/zoneinfo",
)
_SERVES = (
    "cumulant.serving.workers.server",
    "cumulant.serving.workers.worker",
    "cumulant.serving.grpc.server",
    "cumulant.cli.serving.predictions",
    "cumulant.serving.prediction_log.process",
    "cumulant.serving.prediction_log.storage.log_reader",
    "cumulant.drivers.local.log",
    "onnxruntime",
    "uvloop",
)
#: the oldest date of a zip file, as in the wheel
WHEN = 315532800


def main(root: Path) -> None:
    """Make ROOT, with ROOT/app filled by pip, the whole file system of the image."""
    prune(root / "app")
    for library in root.rglob("*.so*"):
        cut(library)
    _system(root)
    _packages(root)
    compileall.compile_dir(
        root, maxlevels=99, quiet=2, stripdir=str(root), invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
    )
    _load_all(root)
    for path in (root, *root.rglob("*")):
        os.utime(path, (WHEN, WHEN), follow_symlinks=False)


def prune(app: Path) -> None:
    """Remove what no server loads from the packages in `app`."""
    for pattern in UNUSED:
        for path in list(app.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def cut(path: Path) -> None:
    """Cut off what follows the last loaded part of a 64-bit little-endian ELF file: symbols for debuggers, mostly."""
    with path.open("r+b") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01" or path.is_symlink():
            return
        start, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
        file.seek(start)
        table = file.read(size * count)
        segments = [struct.unpack_from("<8xQ16xQ", table, size * index) for index in range(count)]
        file.truncate(max(start + len(table), *(offset + length for offset, length in segments)))
        # There is no table of sections any more.
        file.seek(40)
        file.write(bytes(8))
        file.seek(58)
        file.write(bytes(6))


def place(path: Path, root: Path) -> None:
    """Copy a file or folder to its place under `root`: each link on the way, and what the last one names."""
    path = path.parent.resolve() / path.name
    target = root / path.relative_to("/")
    if os.path.lexists(target) or not path.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        target.symlink_to(path.readlink())
        place(path.parent / path.readlink(), root)
    elif path.is_dir():
        shutil.copytree(path, target, symlinks=True, ignore=shutil.ignore_patterns("right", "posix"))
    else:
        shutil.copy2(path, target)


def libraries(files: Iterable[Path]) -> Iterator[Path]:
    """The shared libraries that these files load, by `ldd`."""
    output = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False).stdout
    yield from map(Path, sorted(set(re.findall(r"(?:=>|^)\s*(/\S+) \(0x", output, re.MULTILINE))))


def _system(root: Path) -> None:
    """The interpreter and what it needs; the folders that are links in the base, such as /lib, are links here."""
    for folder in Path("/").iterdir():
        if folder.is_symlink():
            (root / folder.name).symlink_to(folder.readlink())
    program = Path(shutil.which("python3") or sys.executable)
    place(program, root)
    library = Path(os.__file__).resolve().parent
    shutil.copytree(library, root / library.relative_to("/"), ignore=_NO_LIBRARY, ignore_dangling_symlinks=True)
    for path in (*map(Path, _SYSTEM), *libraries([program, *root.rglob("*.so*")])):
        if root not in path.resolve().parents:
            place(path, root)


def _load_all(root: Path) -> None:
    """Load all that serves, in ROOT alone. No home and no telemetry: what is written there is never the same."""
    program = shutil.which("python3") or sys.executable
    temporary = root / "tmp"
    temporary.mkdir()
    words = ["chroot", str(root), program, "-P", "-B", "-c", f"import {', '.join(_SERVES)}"]
    variables = {"PYTHONPATH": "/app", "HOME": "/tmp", "ORT_DISABLE_TELEMETRY": "1"}  # noqa: S108 (inside ROOT)
    subprocess.run(words, env=os.environ | variables, check=True)
    shutil.rmtree(temporary)
    temporary.mkdir()
    temporary.chmod(0o1777)


def _packages(root: Path) -> None:
    """Of the list of Debian's packages, and of their licences, those that have a file here."""
    here = {f"/{path.relative_to(root)}" for path in root.rglob("*") if not path.is_dir()}
    state = Path("/var/lib/dpkg")
    lists = {path.stem.partition(":")[0]: path.read_text().split("\n") for path in state.glob("info/*.list")}
    present = {name for name, files in lists.items() if any(file in here or f"/usr{file}" in here for file in files)}
    for name in sorted(present):
        place(Path("/usr/share/doc") / name / "copyright", root)
    if present:
        paragraphs = (state / "status").read_text().split("\n\n")
        mine = [text for text in paragraphs if text.partition("\n")[0].removeprefix("Package: ") in present]
        (root / "var/lib/dpkg").mkdir(parents=True)
        (root / "var/lib/dpkg/status").write_text("\n\n".join(mine) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
