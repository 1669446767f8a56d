"""Source files behind one port, wherever a source's path points: this machine or an object store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cumulant.core.errors import DataError, UsageError
from cumulant.ports.files import FileInfo, Files
from cumulant.ports.plugins import Drivers, scheme_of


class RoutedFiles:
    """Sends each pattern and file to the driver of its scheme; what has none is a path below the project."""

    def __init__(self, root: Path, client: Callable[[str], Files]) -> None:
        self._root = root
        self._client = client

    def list(self, pattern: str) -> list[FileInfo]:
        return self._for(pattern).list(pattern)

    def fetch(self, file: FileInfo) -> Path:
        return self._for(file.url).fetch(file)

    def _for(self, url: str) -> Files:
        base = files_base(url, self._root)
        try:
            return self._client(base)
        except UsageError as error:
            if type(error) is not UsageError:  # a missing part, a secret that does not exist
                raise
            raise DataError(f"the source {url} cannot be read: {error.message}", subject=url, hint=error.hint) from None


def files_base(url: str, root: Path) -> str:
    """The URL of the client that reads `url`: the project's folder, or the bucket."""
    scheme = scheme_of(url)
    if scheme is None or len(scheme) == 1 or scheme == "file" or "://" not in url:
        return f"file://{root}"  # a single letter is a drive
    rest = url.partition("://")[2]
    return f"{scheme}://{rest.partition('/')[0]}"


def all_files() -> Files:
    """Whatever a path or URL can name, outside a project too."""
    drivers = Drivers.installed()
    return RoutedFiles(Path.cwd(), lambda url: drivers.client(url, "files"))
