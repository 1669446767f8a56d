"""The salt of the keyed hashes that stand for personal values: a secret of the environment, or a file."""

from __future__ import annotations

import secrets
from pathlib import Path

from cumulant.core.errors import NotFoundError, StorageError
from cumulant.core.masking import fingerprint
from cumulant.core.system.private_files import create_private
from cumulant.project.private import make_private
from cumulant.project.vault import Vault

_SALT_BYTES = 32


class Salt:
    """Where the salt of a project is: `declared` in its environment, else a file in its state folder.

    Every method raises StorageError where the file cannot be made, or is damaged.
    """

    def __init__(self, declared: str | None, folder: Path, vault: Vault) -> None:
        self._declared, self._folder, self._vault = declared, folder, vault

    @property
    def is_file(self) -> bool:
        """Whether the project keeps it itself."""
        return self._declared is None

    def read(self) -> bytes:
        """The salt; the file is made on first use.

        Raises:
            NotFoundError: the secret that the environment names does not exist.
        """
        if self._declared is not None:
            return self._vault.reveal(self._declared).encode()
        make_private(self._folder)
        return salt_file(self._folder)

    def fingerprint(self) -> str | None:
        """What distinguishes the salt from another one (`masking.fingerprint`); None where there is none yet, or where
        the secret is missing here.
        """
        if self.is_file and not (self._folder / "salt").exists():
            return None
        try:
            return fingerprint(self.read())
        except NotFoundError:
            return None

    def path(self) -> str | None:
        """The file, made if it is missing; None where the project does not keep the salt itself."""
        self.ensure()
        return str(self._folder / "salt") if self.is_file else None

    def ensure(self) -> None:
        """Make the file where the project keeps the salt itself, so that on a read-only disk it is there to be read."""
        if self.is_file:
            self.read()


def salt_file(folder: Path) -> bytes:
    """The project's random secret for keyed hashes, made on first use and readable by its owner only.

    Processes that make it at the same time get the same bytes: the first one to name its file wins.

    Raises:
        StorageError: the folder cannot be written, or the file is damaged.
    """
    path = folder / "salt"
    try:
        if not path.exists():
            create_private(path, secrets.token_bytes(_SALT_BYTES))
        salt = path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"the project's salt cannot be read or made: {error.strerror}",
            subject=str(path),
            hint="check the folder and its permissions",
        ) from error
    if len(salt) < _SALT_BYTES:
        raise StorageError(
            "the project's salt is damaged",
            subject=str(path),
            hint="restore it from a copy; with a new one, hashes of personal values no longer match older ones",
        )
    return salt
