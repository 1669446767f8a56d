"""A servable's folder: written atomically, verified before use."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TypeVar

import msgspec

from cumulant.core.errors import IntegrityError, NotFoundError, StorageError
from cumulant.core.ids import file_digest
from cumulant.core.plan import PlanVersions
from cumulant.core.servable import FORMAT, GRAPH_FORMAT, GraphServable, Servable
from cumulant.core.system.atomic_files import replace_file, storage_errors

DESCRIPTION = "servable.json"


_KINDS: Mapping[str, type[Servable | GraphServable]] = {FORMAT: Servable, GRAPH_FORMAT: GraphServable}
_AnyServable = TypeVar("_AnyServable", bound=Servable | GraphServable)


class _Versions(msgspec.Struct):
    format: str = ""
    plan: PlanVersions = PlanVersions()


def load_servable(folder: Path | str, *, verify: bool = True) -> Servable:
    """Description of the servable in `folder`, after checking the SHA-256 of every listed file.

    Raises:
        NotFoundError: there is no servable in `folder`.
        IntegrityError: the description cannot be read, is of another format, holds a feature plan that a newer version
            of Cumulant wrote, or a file was altered.
    """
    servable = load_description(folder, verify=verify)
    if not isinstance(servable, Servable):
        hint = "serve it, or send it tensors"
        raise IntegrityError(f"{folder} holds a graph that reads tensors, not rows", subject=str(folder), hint=hint)
    return servable


def load_description(folder: Path | str, *, verify: bool = True) -> Servable | GraphServable:
    """As `load_servable`, of either kind.

    Raises:
        NotFoundError, IntegrityError: as `load_servable`.
    """
    folder = Path(folder)
    servable = _read(folder / DESCRIPTION)
    for name in (servable.model, *servable.files):
        _check_inside(folder, name)
    if servable.model not in servable.files:
        raise IntegrityError(f"{DESCRIPTION} lists no checksum for {servable.model}", subject=str(folder))
    if verify:
        for name, expected in servable.files.items():
            _check_file(folder / name, expected)
    return servable


def _read(path: Path) -> Servable | GraphServable:
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        hint = "name a folder that `cumulant train` wrote"
        raise NotFoundError(f"{path.parent} holds no servable", subject=str(path.parent), hint=hint) from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}", subject=str(path)) from error
    try:
        versions = msgspec.json.decode(text, type=_Versions)
        format_name = versions.format
        if format_name not in _KINDS:
            hint = "build the servable again with this version of Cumulant"
            raise IntegrityError(
                f'{path} has format "{format_name}", expected "{FORMAT}"', subject=str(path), hint=hint
            )
        versions.plan.check(f"the feature plan of {path}")
        return msgspec.json.decode(text, type=_KINDS[format_name])
    except (msgspec.DecodeError, RecursionError) as error:
        raise IntegrityError(f"{path} is not a servable's description: {error}", subject=str(path)) from None


def _check_inside(folder: Path, name: str) -> None:
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name:
        raise IntegrityError(f'"{name}" leaves the servable\'s folder', subject=str(folder))


def _check_file(path: Path, expected: str) -> None:
    try:
        digest = file_digest(path)
    except OSError:
        raise IntegrityError(f"{path} is listed in {DESCRIPTION} but cannot be read", subject=str(path)) from None
    if digest != expected:
        hint = "fetch or build the servable again"
        raise IntegrityError(f"{path} was altered after it was written", subject=str(path), hint=hint)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Temporary folder that is renamed to `out` when the block succeeds, and deleted otherwise.

    An existing folder `out` is replaced.

    Raises:
        StorageError: the disk is full or the place cannot be written.
    """
    draft = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with storage_errors(out, hint="free some space or choose another folder"):
            draft.mkdir(parents=True)
            yield draft
            _replace(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _replace(draft: Path, out: Path) -> None:
    if not out.exists():
        draft.rename(out)
        return
    old = draft.with_suffix(".old")
    out.rename(old)
    draft.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def write_sealed(folder: Path, servable: _AnyServable) -> _AnyServable:
    """Write the description of `folder`, with the checksums of every other file in it."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {name: file_digest(folder / name) for name in names if name != DESCRIPTION}
    sealed = msgspec.structs.replace(servable, files=files)
    write_description(folder, sealed)
    return sealed


def write_description(folder: Path, servable: Servable | GraphServable) -> None:
    """Replace the description in one step."""
    content = msgspec.json.format(msgspec.json.encode(servable), indent=2)
    replace_file(folder / DESCRIPTION, content, durable=False)


def with_version(folder: Path, version: str) -> Servable | GraphServable:
    """Write the registered version into the description of this copy."""
    servable = msgspec.structs.replace(load_description(folder, verify=False), version=version)
    write_description(folder, servable)
    return servable


def with_salt(folder: Path, fingerprint: str) -> Servable | GraphServable:
    """Write the fingerprint of the required salt into the description of this copy; empty: any."""
    servable = load_description(folder, verify=False)
    if isinstance(servable, Servable):
        servable = msgspec.structs.replace(servable, salt_fingerprint=fingerprint)
        write_description(folder, servable)
    return servable
