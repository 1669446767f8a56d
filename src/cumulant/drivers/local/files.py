"""A user's source files on this machine: a path, a folder or a glob."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from cumulant.core.errors import DataError
from cumulant.drivers.local.location import locate
from cumulant.ports.files import FileInfo


class LocalFiles:
    """`file:///base/folder`: relative patterns start there; absolute ones and `file://` are taken as they stand.

    A folder stands for all files below it, except hidden ones and those that start with `_` (such as the marks
    that engines leave beside their output). `**` in a glob spans folders. A path that exists is taken
    literally, whatever characters it holds. URLs are absolute paths.
    """

    def __init__(self, url: str = "file://") -> None:
        self._base = Path(os.path.abspath(locate(url).path))  # noqa: PTH100 - links in the path are kept as written

    def list(self, pattern: str) -> list[FileInfo]:
        path = self._base / Path(pattern.removeprefix("file://")).expanduser()
        if path.is_dir():
            paths = _list_below(path)
        elif path.exists():
            paths = [path]
        else:
            paths = [Path(files) for files in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - no hidden files
        files = [_describe(path) for path in paths if not path.is_dir()]
        return sorted(files, key=lambda info: info.url)

    def fetch(self, file: FileInfo) -> Path:
        path = self._base / file.url.removeprefix("file://")
        try:
            path.open("rb").close()
        except OSError as error:
            raise DataError(
                f"source file {path} cannot be read: {error.strerror}",
                subject=str(path),
                hint="check the path and its permissions",
            ) from error
        return path


def _list_below(folder: Path) -> list[Path]:
    paths = []
    for current, folders, names in os.walk(folder, onerror=_raise_unreadable):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        paths += [Path(current, name) for name in names if not name.startswith((".", "_"))]
    return paths


def _raise_unreadable(error: OSError) -> None:
    raise DataError(
        f"folder {error.filename} cannot be read: {error.strerror}",
        subject=str(error.filename),
        hint="check its permissions",
    ) from error


def _describe(path: Path) -> FileInfo:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(
            f"source file {path} cannot be read: {error.strerror}",
            subject=str(path),
            hint="check the path and its permissions; a link may point nowhere",
        ) from error
    # The inode identifies a file that was replaced by another of the same size and time. One that was edited in place,
    # with its time set back, is identified by its ctime, which no program can set.
    return FileInfo(
        str(path), status.st_size, f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}-{status.st_ctime_ns}"
    )
