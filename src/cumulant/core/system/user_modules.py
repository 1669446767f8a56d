"""Files of the project as modules: always run from their text, and separate from those of other projects."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.abc import PathEntryFinder
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType


#: the module path is of the process
_PATH = threading.RLock()


class _FromText(SourceFileLoader):
    """The module is compiled anew: Python compares a compiled file and its text by whole seconds and size only."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def import_file(name: str, file: Path) -> ModuleType:
    """Run the file as the module `name`. What its code raises is raised here, and no module of that name remains."""
    spec = spec_from_loader(name, _FromText(name, str(file)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses and pickles of the file look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise
    return module


@contextmanager
def project_first(root: Path, modules: dict[str, ModuleType]) -> Iterator[None]:
    """As `project_imports`, with `root` first on the module path. Threads take turns."""
    with _PATH:
        before = list(sys.path)
        sys.path.insert(0, str(root))
        try:
            with project_imports(root, modules):
                yield
        finally:
            sys.path[:] = before


@contextmanager
def project_imports(root: Path, modules: dict[str, ModuleType]) -> Iterator[None]:
    """Import what is below `root` from its text, and only for the time of the context.

    `modules` are those that code of the project imported before; those that it imports now are added. Modules that
    the process imported from the same files are set aside: the files may have been edited since.
    """
    roots, root = {str(root), str(root.resolve())}, root.resolve()
    hook = _hook(root)
    aside = {name: module for name, module in list(sys.modules.items()) if _is_top(name, module, roots)}
    for name in aside:
        sys.modules.pop(name, None)  # another thread may have set it aside
    before = dict(sys.modules)
    sys.modules.update(modules)
    sys.path_hooks.insert(0, hook)
    _forget_finders(roots)
    try:
        yield
    finally:
        sys.path_hooks.remove(hook)
        _forget_finders(roots)
        added = {name: module for name, module in list(sys.modules.items()) if before.get(name) is not module}
        folders: dict[str, bool] = {}
        own = {name: module for name, module in added.items() if _is_of_project(name, module, root, folders)}
        for name in own:
            sys.modules.pop(name, None)
        modules.update(own)
        sys.modules.update({name: module for name, module in before.items() if name in own})
        sys.modules.update(aside)


def _hook(root: Path) -> Callable[[str], PathEntryFinder]:
    """Finds modules in the folders below `root` as Python does, but never reads compiled files of a text."""
    loaders = (
        (ExtensionFileLoader, EXTENSION_SUFFIXES),
        (_FromText, SOURCE_SUFFIXES),
        (SourcelessFileLoader, BYTECODE_SUFFIXES),
    )
    finder = FileFinder.path_hook(*loaders)

    def find(folder: str) -> PathEntryFinder:
        if not _is_below(folder, root):
            raise ImportError(folder)
        return finder(folder)

    return find


def _forget_finders(roots: set[str]) -> None:
    for folder in list(sys.path_importer_cache):
        if folder.startswith(tuple(roots)):
            sys.path_importer_cache.pop(folder, None)


def _is_below(place: str | None, root: Path) -> bool:
    if not place:
        return False
    path = Path(place).resolve()
    if not path.is_relative_to(root) or "site-packages" in path.parts:
        return False
    prefix = Path(sys.prefix).resolve()
    return not (prefix.is_relative_to(root) and prefix != root and path.is_relative_to(prefix))


def _is_of_project(name: str, module: ModuleType, root: Path, folders: dict[str, bool]) -> bool:
    """Whether a module is below `root`, except this package in a working copy; `folders` caches the answer."""
    place = _location(module)
    if place is None or name.partition(".")[0] == __package__.partition(".")[0]:
        return False
    if not place.endswith(".py") or os.path.islink(place):  # noqa: PTH114 - a Path takes as long as the rest
        return _is_below(place, root)
    folder = os.path.dirname(place)  # noqa: PTH120
    if folder not in folders:
        folders[folder] = _is_below(folder, root)
    return folders[folder]


def _is_top(name: str, module: ModuleType, roots: set[str]) -> bool:
    """Whether the module is what `import name` finds with the root, in one of its spellings, first on the path."""
    place, inner = _location(module), name.replace(".", os.sep)
    bases = [f"{root}{os.sep}{inner}" for root in roots]
    return place is not None and any(place in (f"{base}.py", f"{base}{os.sep}__init__.py", base) for base in bases)


def _location(module: ModuleType) -> str | None:
    names = getattr(module, "__dict__", {})  # reading an attribute may import more
    file = names.get("__file__")
    if isinstance(file, str):
        return file
    folders = names.get("__path__")
    return next((str(folder) for folder in folders), None) if folders is not None else None
