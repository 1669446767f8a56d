"""A quick check that the tracking server accepts connections, before MLflow's client with its long timeouts."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from cumulant.core.errors import EngineUnavailableError, UsageError
from cumulant.drivers.mlflow.location import SUBJECT

#: seconds for each address of the host; most have two
_WAIT = 1.4
_PORTS = {"http": 80, "https": 443}


def check_reachable(tracking_uri: str) -> None:
    """Connect once to the server of an `http` or `https` address. Behind a proxy nothing is checked.

    Raises:
        EngineUnavailableError: no server accepts the connection.
        UsageError: the address has no host or an invalid port.
    """
    try:
        parts = urlsplit(tracking_uri)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError as error:
        raise _address_error() from error
    if port is None or (parts.scheme in getproxies() and host and not proxy_bypass(host)):
        return
    if not host:
        raise _address_error()
    try:
        socket.create_connection((host, port), timeout=_WAIT).close()
    except OSError as error:
        hint = "check that its server runs and that the address is right, then try again"
        where = f"{host}:{port}"
        raise EngineUnavailableError(
            f"MLflow does not answer at {where}: {error.strerror or error}",
            subject=where,
            hint=hint,
        ) from error


def _address_error() -> UsageError:
    """Without the address, which may have a password."""
    hint = "write https://HOST or http://HOST:PORT"
    return UsageError("the address of the MLflow tracking server names no host", subject=SUBJECT, hint=hint)
