"""The project's code as one object, named by its content, so that a step can run where the project's folder is not.

A bundle holds the project file, the files that it extends, the Python files that it names, and the modules of the
project that these import; no data. Whoever may write the store of objects can change what workers run.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import IntegrityError, UsageError
from cumulant.core.ids import bytes_digest, digest, file_digest
from cumulant.core.system.atomic_files import storage_errors
from cumulant.core.system.temporary_folders import in_use, remove_abandoned
from cumulant.flows.ledger.stored_folder import stored_folder
from cumulant.project.endpoints import STATE

if TYPE_CHECKING:
    from cumulant.ports.objects import ObjectStore
    from cumulant.project.project import Project

CODE = "code"
"""The first part of the bundles' keys."""
MOST_BYTES = 20 << 20
COPIES = 5
"""Bundles that stay on a machine after their use."""
_KEY = re.compile(rf"{CODE}/[0-9a-f]{{32,}}")
_MANIFEST = "bundle.json"
_FILES = "files"
_DRAFT = ".new-"


class _Manifest(msgspec.Struct, frozen=True):
    """`project`: the project's folder among the files; `files`: the digest of each file."""

    project: str
    files: dict[str, str]


def store_code(project: Project) -> str:
    """Store the project's code, if it is not there yet; the bundle's key.

    Raises:
        UsageError: it is larger than MOST_BYTES.
    """
    read = _documents(project)
    others = set(_code_files(project)) - read.keys()
    sizes = {path: len(content) for path, content in read.items()} | {path: path.stat().st_size for path in others}
    if (size := sum(sizes.values())) > MOST_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        raise UsageError(
            f"the project's code takes {size / 1e6:,.0f} MB, and at most {MOST_BYTES / 1e6:,.0f} MB go to workers",
            subject=str(largest),
            hint="keep data out of the Python files, or use `compute: subprocess://`",
        )
    contents = read | {path: path.read_bytes() for path in others}
    base = Path(os.path.commonpath([project.root.parent, *(path.parent for path in contents)]))
    manifest = _Manifest(
        project.root.relative_to(base).as_posix(),
        {path.relative_to(base).as_posix(): bytes_digest(contents[path]) for path in sorted(contents)},
    )
    key = _key(manifest)
    if project.objects().find(key) is None:
        with stored_folder(project.objects(), key, CODE) as folder:
            for name in manifest.files:
                target = folder / _FILES / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(contents[base / name])
            (folder / _MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return key


@contextmanager
def open_code(objects: ObjectStore, key: str, folder: Path, *, state: Path) -> Iterator[Path]:
    """The project's folder of a bundle, below `folder`, while the block lasts; it is fetched and verified by its name.

    The last COPIES bundles stay, so that they need not be fetched again, and those that a process has open.
    `state` is the state folder of this machine's own project, which the bundle's project uses as its own.

    Raises:
        NotFoundError: the bundle is gone.
        IntegrityError: its files are not those that were stored.
        StorageError: this machine cannot write them, such as to a full disk.
    """
    if _KEY.fullmatch(key) is None:
        raise _damaged(key)
    target = folder / key.rpartition("/")[2]
    with ExitStack() as stack:
        with storage_errors(folder, hint="free some space there"):
            if not _keep(target, stack):
                _fetch(objects, key, target, state, stack)
                _keep(target, stack)
            _remove_unused(folder)
        yield target / _FILES / _read(target).project


def _fetch(objects: ObjectStore, key: str, target: Path, state: Path, stack: ExitStack) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=_DRAFT))
    stack.enter_context(in_use(draft))
    try:
        with objects.open(key) as source:
            _copy(source, draft)
        _verify(draft, key)  # the copy, which nobody else can change any more, and in which no file is a link
        (draft / _FILES / _read(draft).project / STATE).symlink_to(state, target_is_directory=True)
        with suppress(OSError):  # another worker was first, with the same content
            draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copytree(source, target, dirs_exist_ok=True)
    except shutil.Error as error:  # one for all files; the first says enough
        raise OSError(error.args[0][0][2]) from error


def _keep(bundle: Path, stack: ExitStack) -> bool:
    """Whether the bundle is there; it stays until the stack is closed."""
    with suppress(FileNotFoundError, BlockingIOError):  # absent, or being removed
        stack.enter_context(in_use(bundle))
        os.utime(bundle)
        return True
    return False


def _remove_unused(folder: Path) -> None:
    bundles = [(path.stat().st_mtime, path) for path in folder.glob("[!.]*")]
    remove_abandoned(path for _, path in sorted(bundles, reverse=True)[COPIES:])
    remove_abandoned(folder.glob(f"{_DRAFT}*"))


def _documents(project: Project) -> dict[Path, bytes]:
    """The project file and those that it extends, as they were when the project was loaded: they may differ by now.

    What is extended in an object store, each machine fetches itself.
    """
    own = [document for document in project.file.layers.documents if not document.shared]
    return {Path(os.path.normpath(document.path.absolute())): document.content for document in own}


def _code_files(project: Project) -> Iterator[Path]:
    """The other files of the bundle."""
    from cumulant.data.code_hash import code_files

    root = project.root
    contracts = (root / source.contract for source in project.spec.data.values() if source.contract)
    yield from (path for path in contracts if path.is_file())
    for name in _python_files(project):
        file = Path(os.path.normpath(root / name))
        if file.is_file():  # one that is missing fails the step, as in the command's own process
            yield from code_files(file, root)


def _python_files(project: Project) -> Iterator[str]:
    """The files that the project file names, relative to the project."""
    spec = project.spec
    yield spec.features
    yield from (_file_of(source.prepare) for source in spec.data.values() if source.prepare)
    if spec.training is not None:
        yield from (_file_of(name) for name in project.training().trainers if _file_of(name).endswith(".py"))


def _file_of(reference: str) -> str:
    return reference.rpartition(":")[0]


def _read(folder: Path) -> _Manifest:
    return msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=_Manifest)


def _key(manifest: _Manifest) -> str:
    return f"{CODE}/{digest(manifest)}"


def _verify(folder: Path, key: str) -> None:
    try:
        manifest = _read(folder)
        named = {folder / _FILES / name: content for name, content in manifest.files.items()}
        present = {path for path in (folder / _FILES).rglob("*") if path.is_file()}
        whole = present == named.keys() and all(file_digest(path) == content for path, content in named.items())
    except (OSError, msgspec.MsgspecError):
        whole = False
    if not whole or _key(manifest) != key or not _is_below(manifest.project):
        raise _damaged(key)


def _is_below(project: str) -> bool:
    path = PurePosixPath(project)
    return not path.is_absolute() and ".." not in path.parts


def _damaged(key: str) -> IntegrityError:
    return IntegrityError(
        f"the stored code {key} is damaged: its files are not those that were stored",
        subject=key,
        hint="delete the object, and run the command again, which stores it again",
    )
