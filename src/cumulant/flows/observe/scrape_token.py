"""The token by which the Prometheus of a stack reads the metrics of the API."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
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
#: of a token; seconds after which it is renewed, and after which a renewal that failed is tried again
_LIFE, RENEWED, RETRIED = timedelta(days=30), 7 * 86_400.0, 300.0
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


def renewal_interval(project: Project) -> float:
    """Seconds after which the token is renewed: a provider's policy may refuse users' tokens before they expire."""
    policy = project.sign_in
    if policy.provider is None:
        return RENEWED
    return min(RENEWED, policy.limits.recheck_tokens.total_seconds() / 2)


class TokenRenewal:
    """Renews the token of a stack that runs for weeks, on a thread: users' tokens are not good for ever."""

    def __init__(self, project: Project, path: Path, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._project, self._path, self._steady = project, path, steady
        self._interval = renewal_interval(project)
        self._due = steady() + self._interval - self._age()
        self._thread: threading.Thread | None = None

    def __call__(self) -> None:
        """Begin a renewal where one is due and none is under way; one that fails is tried again within minutes."""
        if self._steady() < self._due or (self._thread is not None and self._thread.is_alive()):
            return
        self._due = self._steady() + min(RETRIED, self._interval)
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        if renew_scrape_token(self._project, self._path):
            self._due = self._steady() + self._interval

    def _age(self) -> float:
        """Seconds since the token was written: the start of the stack may have kept the one of before."""
        with suppress(OSError):
            return max(0.0, time.time() - self._path.stat().st_mtime)
        return 0.0

    def close(self) -> None:
        """Wait for a renewal that is under way, before the project is closed."""
        if self._thread is not None:
            self._thread.join(_ENDED)
