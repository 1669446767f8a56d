"""Cumulant itself as a wheel from the files that run now, editable or installed; nothing is built or downloaded."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from cumulant.core import version
from cumulant.core.errors import UsageError
from cumulant.core.version import __version__

_TAGS = "Wheel-Version: 1.0\nGenerator: cumulant\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
#: the oldest date of a zip file: the same files give the same bytes
_WHEN = (1980, 1, 1, 0, 0, 0)


def write_wheel(folder: Path) -> Path:
    """Write `cumulant-VERSION-py3-none-any.whl` to `folder`; returns its path.

    Raises:
        UsageError: the metadata of the installation is missing.
    """
    info = f"cumulant-{__version__}.dist-info"
    path = folder / f"cumulant-{__version__}-py3-none-any.whl"
    records = []
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, content in (*_modules(), *((f"{info}/{name}", text.encode()) for name, text in _metadata())):
            _add(archive, name, content)
            code = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            records.append(f"{name},sha256={code},{len(content)}\n")
        _add(archive, f"{info}/RECORD", "".join((*records, f"{info}/RECORD,,\n")).encode())
    return path


def _add(archive: ZipFile, name: str, content: bytes) -> None:
    member = ZipInfo(name, _WHEN)
    member.external_attr = 0o644 << 16
    archive.writestr(member, content, ZIP_DEFLATED)


def _modules() -> Iterator[tuple[str, bytes]]:
    home = Path(version.__file__).parents[1]
    for path in sorted(home.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"{home.name}/{path.relative_to(home).as_posix()}", path.read_bytes()


def _metadata() -> Iterator[tuple[str, str]]:
    try:
        installed = distribution("cumulant")
    except PackageNotFoundError:
        hint = "install it (pip install cumulant, or pip install -e . in its source tree)"
        raise UsageError("cumulant runs here without being installed: it has no metadata", hint=hint) from None
    # An editable install keeps the metadata of the day it was made; the version is that of the files.
    lines = (installed.read_text("METADATA") or "").split("\n")
    yield "METADATA", "\n".join(f"Version: {__version__}" if line.startswith("Version:") else line for line in lines)
    yield "WHEEL", _TAGS
    yield "entry_points.txt", installed.read_text("entry_points.txt") or ""
