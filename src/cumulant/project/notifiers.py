"""Receivers of messages, as the project file names them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.ids import digest
from cumulant.ports.notifier import KEEPS_STATE
from cumulant.project.drivers import Drivers
from cumulant.project.texts import masked, secrets_in

_PLAIN = re.compile(r"https?://", re.IGNORECASE)


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """One receiver. `url` holds references to secrets and perhaps a secret path; `shown` is for people and events.

    `keeps_state`: it groups and silences alerts itself, and is told of all of them.
    """

    name: str
    url: str
    shown: str
    keeps_state: bool = False


def receivers(urls: Sequence[str], drivers: Drivers) -> list[Receiver]:
    """Each once, in the order of the file."""
    found = {url: _receiver(url, drivers) for url in urls}
    return list(found.values())


def full_url(url: str) -> str:
    """`https://` alone is a webhook: other ports have that scheme too."""
    return f"webhook+{url}" if _PLAIN.match(url) else url


def _receiver(url: str, drivers: Drivers) -> Receiver:
    shown = shown_url(url)
    kind = re.match(r"[a-z]+", full_url(url).lower())
    return Receiver(
        name=f"{kind[0] if kind else 'receiver'}-{digest(url)[:6]}",
        url=url,
        shown=shown,
        keeps_state=KEEPS_STATE in _capabilities(full_url(url), drivers),
    )


def _capabilities(url: str, drivers: Drivers) -> frozenset[str]:
    try:
        return drivers.capabilities(url, "notifier")
    except UsageError:  # its scheme is a secret, or unknown: delivery says so
        return frozenset()


def shown_url(url: str) -> str:
    """A receiver's URL without what may be a secret: the password, and of a webhook the path."""
    if secrets_in(url):
        return masked(url)
    try:
        parts = urlsplit(url)
        host = f"{parts.hostname or ''}:{parts.port}" if parts.port else parts.hostname or ""
    except ValueError:
        return "***"
    if parts.scheme in ("smtp", "smtps"):
        return f"{parts.scheme}://{host} to {_to(parts.query)}"
    path = "/***" if parts.path.strip("/") or parts.query else ""
    return f"{parts.scheme}://{host}{path}"


def _to(query: str) -> str:
    return next((part.partition("=")[2] for part in query.split("&") if part.startswith("to=")), "nobody")
