"""Model repository: the folders that the server was started with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cumulant.core.errors import CumulantError, IntegrityError, NotFoundError, StorageError, not_found
from cumulant.core.servable import UNREGISTERED, GraphServable, Servable
from cumulant.servable.folder import DESCRIPTION, load_description

_DEPTH = 2
#: of a version that counts
_DIGITS = 18


class Repository:
    """Servables under the given folders, up to two levels down, by the names in their descriptions."""

    def __init__(self, roots: Sequence[Path | str]) -> None:
        self._roots = [Path(root) for root in roots]
        self._names: dict[Path, str] = {}

    def remember_names(self, names: Mapping[Path, str]) -> None:
        """Register the model names of folders, for those whose description breaks later."""
        self._names |= names

    def folders(self) -> list[Path]:
        """Every servable's folder, in the order of the roots and of their names.

        Raises:
            NotFoundError: a root that holds none.
        """
        folders: list[Path] = []
        for root in self._roots:
            inside = _servables(root, _DEPTH)
            if not inside:
                hint = "name a folder that `cumulant train` or `cumulant package` wrote"
                raise NotFoundError(f"{root} holds no servable", subject=str(root), hint=hint)
            folders += sorted(inside, key=_version_order)
        return folders

    def check(self, folder: Path) -> Servable | GraphServable:
        """The description of a servable that may be opened: links point about within the repository, and nowhere else;
        what is listed are plain files.

        Raises:
            NotFoundError, IntegrityError: as `load_description`; a link that leads out, or no plain file.
        """
        roots = [root.resolve() for root in self._roots]
        described = load_description(folder, verify=False)
        for name in ("", DESCRIPTION, described.model, *described.files):
            path = folder / name
            if not any(path.resolve().is_relative_to(root) for root in roots):
                hint = "copy what it points to into the repository"
                raise IntegrityError(f"{path} leads out of the repository", subject=str(folder), hint=hint)
            if name and path.exists() and not path.is_file():
                raise IntegrityError(f"{path} is no plain file", subject=str(folder))
        return described

    def descriptions(self) -> list[tuple[Path, Servable | GraphServable | CumulantError]]:
        """Folder and description of every servable, or its error."""
        descriptions: list[tuple[Path, Servable | GraphServable | CumulantError]] = []
        for root in self._roots:
            for folder in _servables(root, _DEPTH):
                try:
                    description = load_description(folder, verify=False)
                    self._names[folder] = description.name
                    descriptions.append((folder, description))
                except CumulantError as error:
                    descriptions.append((folder, error))
        return descriptions

    def versions(self, name: str) -> list[Path]:
        """The folders of every version of a model, the one to be its default last.

        Raises:
            NotFoundError: no servable has that name.
            IntegrityError: the description of one cannot be read that had this name, or whose folder has it.
        """
        described = self.descriptions()
        for folder, broken in described:
            if isinstance(broken, CumulantError) and self._names.get(folder, folder.name) == name:
                raise IntegrityError(broken.message, subject=str(folder), hint=broken.hint)
        known = [
            (folder, description) for folder, description in described if not isinstance(description, CumulantError)
        ]
        versions = [(folder, description) for folder, description in known if description.name == name]
        if not versions:
            raise not_found("model in the repository", name[:100], {description.name for _, description in known})
        return [
            folder for folder, description in sorted(versions, key=lambda pair: _order(pair[1].version or UNREGISTERED))
        ]


def _version_order(folder: Path) -> tuple[int, int, str]:
    try:
        return _order(load_description(folder, verify=False).version or UNREGISTERED)
    except CumulantError:
        return (0, 0, "")  # opening it raises the error


def _order(version: str) -> tuple[int, int, str]:
    """Sort key of versions: numbers by size, after other texts."""
    return (1, int(version), "") if version.isdecimal() and len(version) <= _DIGITS else (0, 0, version)


def _servables(folder: Path, depth: int) -> list[Path]:
    try:
        if (folder / DESCRIPTION).is_file():
            return [folder]
        if depth == 0 or not folder.is_dir():
            return []
        inside = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        hint = "check its permissions"
        raise StorageError(f"{folder} cannot be read: {error.strerror}", subject=str(folder), hint=hint) from error
    return [servable for entry in inside for servable in _servables(entry, depth - 1)]
