"""Copies of published folders on this machine: private, and of limited size; or deleted after use."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl

from cumulant.core.errors import StorageError, UsageError
from cumulant.core.system.temporary_folders import DAY, in_use, remove_abandoned
from cumulant.core.units import size

_STAGING = ".writing-"
DEFAULT_BYTES = 20 << 30
#: seconds for which a copy stays after its last use: the user's home may be mounted by machines that see no locks
_SETTLED = 3600.0


class Copies:
    """Folders by the unique name of what they copy, in a folder that only this user can enter.

    `limit`: bytes, beyond which the longest unused copies are removed that no process uses. With 0 copies end with
    this object.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._held: set[str] = set()
        self._stack = ExitStack()
        self._end = weakref.finalize(self, self._stack.close)
        self._own: Path | None = None

    def hold(self, name: str, fill: Callable[[Path], None]) -> Path:
        """The copy of that name, which stays while this object lives; `fill` makes it where there is none."""
        if name in self._held:
            return self._root() / name
        path = self._enter(name, fill, self._stack)
        self._held.add(name)
        return path

    @contextmanager
    def open(self, name: str, fill: Callable[[Path], None]) -> Iterator[Path]:
        """As `hold`; the copy stays while the block lasts."""
        with ExitStack() as stack:
            yield self._enter(name, fill, stack)

    def _enter(self, name: str, fill: Callable[[Path], None], stack: ExitStack) -> Path:
        if (copy := self._find(name, stack)) is not None:
            return copy
        with self.staging() as folder:
            fill(folder)
            target = self._place(folder, name)
            copy = self._find(name, stack)
            self._evict()
        return copy or target

    def _find(self, name: str, stack: ExitStack) -> Path | None:
        """The copy of that name, which stays until the stack is closed; None where there is none."""
        path = self._root() / name
        with suppress(FileNotFoundError, BlockingIOError), self._errors():  # absent, or being removed
            stack.enter_context(in_use(path))
            if path.is_dir():
                os.utime(path)
                return path
        return None

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A temporary folder. Those of killed processes are removed."""
        with ExitStack() as stack:
            with self._errors():
                folder = self._make(stack)
            yield folder

    def keep(self, staged: Path, name: str) -> None:
        """Make a staged folder the copy of that name, as long as there is room."""
        self._place(staged, name)
        self._evict()

    def _place(self, staged: Path, name: str) -> Path:
        """Another process may have made the same copy meanwhile."""
        target = self._root() / name
        with self._errors():
            try:
                staged.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
        return target

    def discard(self, name: str) -> None:
        shutil.rmtree(self._root() / name, ignore_errors=True)

    def _root(self) -> Path:
        if self._limit != 0:
            return self._folder
        if self._own is None:
            with self._errors():
                self._own = self._make(self._stack)
        return self._own

    def _make(self, stack: ExitStack) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        remove_abandoned(self._folder.glob(f"{_STAGING}*"), after=DAY)
        folder = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self._folder))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(in_use(folder))
        return folder

    def _evict(self) -> None:
        if not self._limit:
            return
        with suppress(OSError):
            paths = [path for path in self._folder.iterdir() if not path.name.startswith(".")]
            total = 0
            for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
                total += sum(file.stat().st_size for file in path.rglob("*"))
                if total > self._limit and path.name not in self._held:
                    remove_abandoned([path], after=_SETTLED)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, BlockingIOError):
            raise
        except OSError as error:
            raise cache_error(self._folder, error) from error


def cache_error(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"copies of stored things cannot be kept on this machine: {error.strerror}",
        subject=str(folder),
        hint="free some space, make the folder writable, or bound the copies with ?cache=SIZE after the store's URL",
    )


class StoreUrl(NamedTuple):
    """A store's URL in parts: `cache` is how many bytes of copies `?cache=SIZE` allows, `region` that of `?region=`."""

    address: str
    cache: int
    region: str | None


def parse_store_url(url: str, *, cache: int = DEFAULT_BYTES) -> StoreUrl:
    """`cache` is the default. Raises UsageError: another option, no size, or a region that the client would not use."""
    address, _, text = url.partition("?")
    options = dict(parse_qsl(text, keep_blank_values=True))
    bound, region = options.pop("cache", None), options.pop("region", None)
    if region and not address.lower().startswith("s3://"):
        hint = "leave it out: the bucket itself says where it is, and this client does not read it"
        raise UsageError("only the URL of s3:// has the option region", subject=url, hint=hint)
    for name in options:
        hint = f"leave out ?{name}; what is stored belongs to the project that opens it"
        raise UsageError(f'the URL of an object store has no option "{name}"', subject=url, hint=hint)
    return StoreUrl(address, cache if bound is None else 0 if bound == "0" else size(bound), region or None)
