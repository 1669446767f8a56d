"""The token by which the Prometheus of a stack reads the metrics of the API."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError, NotFoundError
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.flows.identities.records import secret_hash
from cumulant.flows.identities.tokens import create_token, revoke_token

if TYPE_CHECKING:
    from pathlib import Path

    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: the only action that the token is good for
_SCOPE = ("stack.show",)
_NAME = "prometheus"
#: of a token, and seconds after which it is renewed
_LIFE, RENEWED = timedelta(days=30), 7 * 86_400.0
#: seconds that the end of a stack waits for a renewal
_ENDED = 10.0


def renew_scrape_token(project: Project, path: Path) -> bool:
    """Write a new token of who runs the stack to a private file, and revoke the one that is there.

    Whether there is a new one: else the reason is written, and the file and its token are as they were.
    """
    try:
        _renew(project, path)
    except CumulantError as error:
        sys.stderr.write(f"Prometheus gets no new token for the metrics of the API: {error.message}\n")
        return False
    return True


def _renew(project: Project, path: Path) -> None:
    principal = project.principal()
    with storage_errors(path):
        before = path.read_text(errors="replace").strip() if path.exists() else ""
    created = create_token(project, _NAME, principal=principal, scope=_SCOPE, expires=_LIFE)
    try:
        with storage_errors(path):
            replace_file(path, created.secret.encode(), private=True)
    except CumulantError:
        _revoke(project, created.secret, principal, "it could not be stored")
        raise
    if before:
        _revoke(project, before, principal, "Prometheus has a new one")


def _revoke(project: Project, secret: str, principal: Principal, reason: str) -> None:
    """Where that fails, the reason is written: the token expires by itself."""
    try:
        revoke_token(project, secret_hash(secret), principal=principal, reason=reason)
    except NotFoundError:
        pass  # it has expired, was revoked, or is of a user whose tokens this one does not see
    except CumulantError as error:
        sys.stderr.write(f"a token of Prometheus is not revoked: {error.message}\n")


class TokenRenewal:
    """Renews the token of a stack that runs for weeks, on a thread: users' tokens are not good for ever."""

    def __init__(self, project: Project, path: Path, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._project, self._path, self._steady = project, path, steady
        self._renewed = steady()
        self._thread: threading.Thread | None = None

    def __call__(self) -> None:
        """Begin a renewal where one is due and none is under way; it is tried again after as long."""
        if self._steady() - self._renewed < RENEWED or (self._thread is not None and self._thread.is_alive()):
            return
        self._renewed = self._steady()
        self._thread = threading.Thread(target=renew_scrape_token, args=(self._project, self._path), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for a renewal that is under way, before the project is closed."""
        if self._thread is not None:
            self._thread.join(_ENDED)
