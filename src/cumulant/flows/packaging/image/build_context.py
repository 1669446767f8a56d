"""The build context: the folder that an image is built from."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from cumulant.core import version
from cumulant.core.errors import UsageError
from cumulant.core.system.atomic_files import storage_errors
from cumulant.flows.packaging.image import trim
from cumulant.flows.packaging.image.dockerfile import Serving, dockerfile
from cumulant.flows.packaging.image.wheel import write_wheel
from cumulant.servable.folder import load_description

DEFAULT_BASE = "python:3.11-slim"
DOCKERFILE, LOCK, MODEL, TRIM = "Dockerfile", "serve.txt", "model", "trim.py"

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")


def check_reference(reference: str, what: str) -> str:
    """Raises UsageError for what cannot name an image; such text could be read as an option or an instruction."""
    if not _REFERENCE.fullmatch(reference):
        hint = "write NAME:TAG or HOST/NAME:TAG"
        raise UsageError(f'"{reference}" cannot be the {what}', subject=reference, hint=hint)
    return reference


def write_context(servable: Path, folder: Path, *, base: str, options: Serving | None = None) -> Path:
    """Write what an image of the servable's folder is built from to `folder`; returns the Dockerfile's path.

    Raises:
        UsageError: `base` names no image, or `folder` holds something else.
        NotFoundError, IntegrityError: the servable cannot be read.
        StorageError: the folder cannot be written.
    """
    check_reference(base, "base image")
    described = load_description(servable)
    check_folder(folder)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / MODEL, ignore_errors=True)
        for old in folder.glob("cumulant-*.whl"):
            old.unlink()
        shutil.copyfile(_lock(), folder / LOCK)
        shutil.copyfile(Path(trim.__file__), folder / TRIM)
        # Of the servable, its files as listed: what else lies there has no place in an image.
        for name in ("servable.json", *described.files):
            (folder / MODEL / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(servable / name, folder / MODEL / name)
        wheel = write_wheel(folder)
        path = folder / DOCKERFILE
        content = (folder / MODEL / "servable.json").read_bytes()
        path.write_text(dockerfile(described, base=base, wheel=wheel.name, content=content, options=options))
    # The user of the image is another: whatever the umask here, it may read. The same servable gives the same layer.
    for part in (folder / MODEL, *(folder / MODEL).rglob("*")):
        part.chmod(0o755 if part.is_dir() else 0o644)
        os.utime(part, (trim.WHEN, trim.WHEN))
    return path


def check_folder(folder: Path) -> None:
    """Raises UsageError where something stands that is no such folder: it would be lost."""
    ours = (folder / DOCKERFILE).is_file() and (folder / LOCK).is_file()
    if folder.is_file() or (folder.is_dir() and not ours and any(folder.iterdir())):
        hint = "choose another --dockerfile"
        raise UsageError(f"{folder} holds something that is no folder of an image", subject=str(folder), hint=hint)


def _lock() -> Path:
    """The packages of the data plane with their hashes: in an installed package, or in the source tree."""
    home = Path(version.__file__).parents[1]
    for path in (home / "requirements-serve.txt", home.parents[1] / "requirements" / "serve.txt"):
        if path.is_file():
            return path
    raise UsageError("this installation of cumulant lacks requirements-serve.txt", hint="install cumulant again")
