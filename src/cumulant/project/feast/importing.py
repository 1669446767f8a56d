"""Import of a Feast repository: an interpreter that has Feast reads it, and the project's files are written."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cumulant.core.errors import DefinitionError, MissingPartError, UsageError
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.ports.plugins import scheme_of
from cumulant.project.feast import describe
from cumulant.project.feast.imported import FeastOptions, ImportedRepository
from cumulant.project.feast.mapping import map_repository
from cumulant.project.feast.project_files import GITIGNORE, EntityRows, project_files
from cumulant.project.feast.repository import FeastRepository, FeastSource, parse_repository

#: seconds that reading a repository may take: imports of Feast alone take up to ten
_LIMIT = 300
INSTALL = "pip install feast"


class FeastImport(msgspec.Struct, frozen=True):
    """What was imported: the definitions, the contents of the project's files by name, and where these go.

    Attributes:
        feast: the version of Feast that read the repository.
        written: whether the files are there now; not after a dry run, and not where nothing could be imported.
    """

    folder: Path
    feast: str
    imported: ImportedRepository
    files: dict[str, str]
    written: bool


def import_feast(
    repository: Path,
    folder: Path,
    *,
    python: str | None = None,
    options: FeastOptions | None = None,
    rows: EntityRows | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> FeastImport:
    """Import the definitions of `repository` into the project folder `folder`. Runs the repository's Python files.

    `python`: an interpreter that has Feast; default: this one. Paths are relative to the working directory. Where no
    feature view can be imported, nothing is written. `force` replaces files that are there.

    Raises:
        MissingPartError: the interpreter has no Feast.
        DefinitionError: the definitions cannot be read by Feast.
        NotFoundError: a service or source that `options` names does not exist.
        UsageError: no such folder or interpreter, or a file of the project is there already.
        StorageError: a file cannot be written.
    """
    options, rows = options or FeastOptions(), rows or EntityRows()
    described = read_repository(repository, python or sys.executable)
    sources = tuple(_as_reached(source, repository, folder) for source in described.sources)
    given = {name: _from(folder, path) for name, path in options.paths.items()}
    imported = map_repository(
        msgspec.structs.replace(described, sources=sources), msgspec.structs.replace(options, paths=given)
    )
    files = project_files(imported, msgspec.structs.replace(rows, path=_from(folder, rows.path) if rows.path else ""))
    written = bool(imported.views) and not dry_run
    if written:
        _write(folder, files, force=force)
    return FeastImport(folder, described.feast, imported, files, written)


def read_repository(repository: Path, python: str) -> FeastRepository:
    """The definitions of a repository, read by the interpreter `python`; raises as `import_feast`."""
    if not (repository / "feature_store.yaml").is_file():
        raise UsageError(
            f"{repository} is no Feast repository: it has no feature_store.yaml",
            subject=str(repository),
            hint="name the folder in which `feast apply` runs",
        )
    with tempfile.TemporaryDirectory(prefix="cumulant-feast-") as scratch:
        out = Path(scratch) / "definitions.json"
        line = [python, describe.__file__, str(repository), str(out)]
        try:
            done = subprocess.run(
                line,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_LIMIT,
                check=False,
            )
        except OSError as error:
            raise UsageError(
                f"{python} cannot be run: {error.strerror or error}",
                subject=python,
                hint="--python takes the path of an interpreter, such as feast-env/bin/python",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise DefinitionError(
                f"the definitions of {repository} were not read within {_LIMIT} s",
                subject=str(repository),
                hint="see what its Python files wait for",
            ) from error
        if done.returncode == describe.NO_FEAST:
            raise MissingPartError(
                f"{python} has no Feast, which reads the repository",
                subject="feast",
                hint=f"`{INSTALL}` there, or name an interpreter that has it with --python",
            )
        if done.returncode != 0 or not out.is_file():
            reason = f"{python} ended with exit code {done.returncode} before it had read the definitions"
            if done.returncode == describe.FAULTY and out.is_file():
                reason = out.read_text(encoding="utf-8")
            raise DefinitionError(
                f"Feast cannot read {repository}: {reason}",
                subject=str(repository),
                hint="`feast apply` there shows where; install what its files import for the same interpreter",
            )
        return parse_repository(out.read_bytes())


def _as_reached(source: FeastSource, repository: Path, folder: Path) -> FeastSource:
    """A source with the path by which the project's folder reaches its files."""
    if source.kind != "FileSource":
        return source
    path = source.path.removeprefix("file://")
    if "://" not in path:
        path = _from(folder, str(repository.absolute() / path))
    return msgspec.structs.replace(source, path=path)


def _from(folder: Path, path: str) -> str:
    """A path of the working directory as the project's folder reaches it; URLs and absolute paths below none stay."""
    if (scheme := scheme_of(path)) is not None and len(scheme) > 1 and "://" in path:
        return path
    try:
        target = Path.cwd() / Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: {error}", subject=path, hint="write the path without ~") from error
    relative = Path(os.path.relpath(target, folder.absolute())).as_posix()
    return str(target) if relative.count("../") > 3 else relative


def _write(folder: Path, files: Mapping[str, str], *, force: bool) -> None:
    """Write a project's files. Raises UsageError where one is there, before any is written."""
    with storage_errors(folder):
        contents = {
            name: (folder / name).read_bytes() if (folder / name).exists() else None  # a link to nothing
            for name in files
            if os.path.lexists(folder / name)
        }
    there = [name for name, content in contents.items() if content != files[name].encode() and name != GITIGNORE]
    if there and not force:
        raise UsageError(
            f"{folder} has {', '.join(there)} already; nothing was written",
            subject=str(folder),
            hint="name an empty folder with --project, or replace them with --force",
        )
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            if name == GITIGNORE and name in contents:  # of a repository around the project
                continue
            replace_file(folder / name, content.encode())
