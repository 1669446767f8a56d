"""Receivers of messages, as the project file names them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.ids import digest
from cumulant.ports.notifier import KEEPS_STATE
from cumulant.ports.plugins import Drivers
from cumulant.project.file.text_values import masked, secrets_in

_PLAIN = re.compile(r"https?://", re.IGNORECASE)
_NAMED_BEFORE_A_SECRET = re.compile(r"([a-z]+)\+\$\{", re.IGNORECASE)


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """One receiver. `url` holds references to secrets and perhaps a secret path; `shown` is for messages and events.

    `keeps_state`: it groups and silences alerts itself, and gets all of them.
    """

    name: str
    url: str
    shown: str
    keeps_state: bool = False


def receivers(urls: Sequence[str], drivers: Drivers, reveal: Callable[[str], str]) -> list[Receiver]:
    """Each once, in the order of the file. `reveal` fills secrets in, where a URL is nothing but one."""
    by_url = {url: _receiver(url, drivers, reveal) for url in urls}
    return list(by_url.values())


def driver_url(url: str) -> str | None:
    """A URL of the same scheme that a driver can be found by; None where the scheme is in a secret.

    Of `slack+${secret:NAME}` the secret begins with `https://` or `http://`, and both are the same driver's.
    """
    named = _NAMED_BEFORE_A_SECRET.match(url)
    if named is not None:
        return f"{named[1].lower()}+https://"
    return None if secrets_in(url.partition("://")[0]) else full_url(url)


def full_url(url: str) -> str:
    """`https://` alone is a webhook: other ports have that scheme too."""
    return f"webhook+{url}" if _PLAIN.match(url) else url


def _receiver(url: str, drivers: Drivers, reveal: Callable[[str], str]) -> Receiver:
    shown = masked_url(url)
    kind = re.match(r"[a-z]+", full_url(url).lower())
    return Receiver(
        name=f"{kind[0] if kind else 'receiver'}-{digest(url)[:6]}",
        url=url,
        shown=shown,
        keeps_state=KEEPS_STATE in _capabilities(url, drivers, reveal),
    )


def _capabilities(url: str, drivers: Drivers, reveal: Callable[[str], str]) -> frozenset[str]:
    try:
        return drivers.capabilities(driver_url(url) or full_url(reveal(url)), "notifier")
    except CumulantError:  # its scheme is unknown, or a secret that is not to be had: delivery says so
        return frozenset()


def masked_url(url: str) -> str:
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
