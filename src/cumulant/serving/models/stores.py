"""Stores and caches of the server, opened by the drivers of their URL schemes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from cumulant.core.errors import UsageError
from cumulant.core.scope import Scope
from cumulant.ports.plugins import Drivers

if TYPE_CHECKING:
    from cumulant.ports.access import Access, RoleBinding
    from cumulant.ports.cache import SharedCache
    from cumulant.ports.log import Log
    from cumulant.ports.online import OnlineStore
    from cumulant.ports.secrets import Secrets


def open_store(url: str, *, scope: str | None = None, secrets: str = "env://") -> OnlineStore:
    """Online store at `url`, opened by the driver of its scheme.

    `scope` is `TENANT/PROJECT/ENVIRONMENT` of the state there, and the secret that `url` names is looked up at the URL
    `secrets`.

    Raises:
        UsageError: no installed driver has that scheme, the driver holds no online state, or no such scope.
        MissingPartError: the driver's engine is not installed.
    """
    named, drivers = url if "://" in url else f"sqlite://{url}", Drivers.installed()

    def find_secrets() -> Secrets:
        return cast("Secrets", drivers.client(secrets, "secrets"))

    of = None if scope is None else parse_scope(scope)
    return cast("OnlineStore", drivers.client(named, "online", secrets=find_secrets, scope=of))


def open_log(place: str, *, secrets: str = "env://") -> Log:
    """Log of posted labels or of refusals in the folder `place`, or at that URL with the secrets at the URL `secrets`.

    What is posted of models without a declaration may be personal: a new folder is this user's alone.

    Raises:
        UsageError: no installed driver has that scheme, or the driver holds no logs.
        MissingPartError: the driver's engine is not installed.
    """
    url, drivers = place, Drivers.installed()
    if "://" not in place:
        url = f"file://{Path(place).absolute()}"
        with suppress(OSError):  # the first record is refused
            Path(place).mkdir(mode=0o700, parents=True, exist_ok=True)
    return cast("Log", drivers.client(url, "log", secrets=lambda: drivers.client(secrets, "secrets")))


def open_access(url: str, *, scope: Scope, secrets: str = "env://", bindings: Sequence[RoleBinding] = ()) -> Access:
    """The driver at `url` that decides what callers may do, with these roles where it decides by roles.

    Raises:
        UsageError: no installed driver has that scheme, the driver decides nothing, or its policies are faulty.
        MissingPartError: the driver's engine is not installed.
    """
    drivers = Drivers.installed()
    client = drivers.client(
        url, "access", secrets=lambda: drivers.client(secrets, "secrets"), scope=scope, bindings=bindings
    )
    return cast("Access", client)


def parse_scope(text: str) -> Scope:
    """The scope that `TENANT/PROJECT/ENVIRONMENT` names.

    Raises:
        UsageError: it has other parts.
    """
    names = text.split("/")
    if len(names) != 3 or not all(names):
        raise UsageError(f'"{text}" is no scope', subject="--scope", hint="write TENANT/PROJECT/ENVIRONMENT")
    tenant, project, environment = names
    return Scope(tenant=tenant, project=project, environment=environment)


def open_cache(url: str, password: str | None) -> SharedCache:
    """Client of the cache at `url`, not connected yet.

    Raises:
        UsageError: no installed driver has that scheme, or the driver holds no cache, or as its client.
        MissingPartError: the driver's engine is not installed.
    """
    return cast("SharedCache", Drivers.installed().client_class(url, "cache")(url, password=password))


def redacted_url(url: str) -> str:
    """`url` without user and options, for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
