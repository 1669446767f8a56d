"""The key that signs checkpoints of the event chain: a secret of the environment, or a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import NotFoundError, StorageError
from cumulant.core.system.private_files import create_private
from cumulant.governance.signed_note import new_private_key, read_private_key
from cumulant.project.private import make_private
from cumulant.project.vault import Vault

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

NAME = "audit-key.pem"


class AuditKey:
    """Where the key of a project is: `declared` in its environment, else a file in its state folder.

    Every method raises UsageError where it is no key, and MissingPartError where the package that signs is missing.
    """

    def __init__(self, declared: str | None, folder: Path, vault: Vault) -> None:
        self._declared, self._folder, self._vault = declared, folder, vault

    def read(self) -> Ed25519PrivateKey:
        """The key; the file is made on first use.

        Raises:
            NotFoundError: the secret that the environment names does not exist.
            StorageError: the file cannot be made or read.
        """
        if self._declared is not None:
            # A file of secrets has one line for each, where a PEM text has `\\n` for the ends of its lines.
            pem = self._vault.reveal(self._declared).replace("\\n", "\n")
            return read_private_key(pem.encode(), "audit_key")
        path = self._folder / NAME
        try:
            if not path.exists():
                make_private(self._folder)
                create_private(path, new_private_key())
            return read_private_key(path.read_bytes(), str(path))
        except OSError as error:
            raise StorageError(
                f"the key of checkpoints cannot be read or made: {error.strerror}",
                subject=str(path),
                hint="check the folder and its permissions",
            ) from error

    def public(self) -> Ed25519PublicKey | None:
        """What others verify with; None where there is no key yet, or where the secret is missing here."""
        if self._declared is None and not (self._folder / NAME).exists():
            return None
        try:
            return self.read().public_key()
        except NotFoundError:
            return None
