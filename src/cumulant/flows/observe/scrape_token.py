"""The token by which the Prometheus of a stack reads the metrics of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.core.errors import NotFoundError
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.flows.identities.records import secret_hash
from cumulant.flows.identities.tokens import LONGEST_LIFE, create_token, revoke_token

if TYPE_CHECKING:
    from pathlib import Path

    from cumulant.project.project import Project

#: the only action that the token is good for
_SCOPE = ("stack.show",)
_NAME = "prometheus"


def renew_scrape_token(project: Project, path: Path) -> None:
    """Write a new token of who starts the stack to a private file, and revoke the one that is there.

    Raises:
        RefusedError: whoever starts the stack may not create it.
        StorageError, EngineUnavailableError: the file or the journal cannot be written.
    """
    with storage_errors(path):
        before = path.read_text().strip() if path.exists() else ""
        principal = project.principal()
        created = create_token(project, _NAME, principal=principal, scope=_SCOPE, expires=LONGEST_LIFE)
        replace_file(path, created.secret.encode(), private=True)
    if before:
        try:
            revoke_token(project, secret_hash(before), principal=principal, reason="the stack was started again")
        except NotFoundError:  # it has expired, was revoked, or is of a user whose tokens this one does not see
            return
