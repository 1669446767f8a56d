"""Secrets, filled in as late as possible: `${secret:NAME}` is text until a client is made with it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from urllib.parse import quote

from cumulant.core.errors import RetryableError
from cumulant.ports.secrets import Secrets
from cumulant.project.file.text_values import SECRET


class Vault:
    """Reveals references to secrets, and takes revealed values out of any text that is about to be shown.

    A secret is read once, and again where `reveal` asks for one that is not old. Values that it had before are taken
    out of texts too.
    """

    def __init__(self, secrets: Callable[[], Secrets], *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._secrets, self._seconds = secrets, seconds
        self._revealed: dict[str, str] = {}
        self._read: dict[str, float] = {}
        self._shown: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Vault({len(self._revealed)} revealed)"

    def reveal(self, text: str, *, within: float | None = None) -> str:
        """`text` with each `${secret:NAME}` filled in. Never store or print the result.

        `within`: a value that was read longer ago than so many seconds is read again, since it may have been replaced.
        While the store does not answer, the known value stands.

        Raises:
            NotFoundError: no such secret; the error names where it was looked for.
        """
        return SECRET.sub(lambda match: self._value(match[1], within), text)

    def reveal_url(self, url: str) -> str:
        """A URL with each `${secret:NAME}` filled in, with special characters escaped in user and password.

        Raises:
            NotFoundError: as `reveal`.
        """
        scheme, separator, rest = url.partition("://")
        login, at, place = rest.rpartition("@")
        return self.reveal(scheme + separator) + SECRET.sub(self._escaped, login) + at + self.reveal(place)

    def redact(self, text: str) -> str:
        """`text` with every value revealed so far replaced by its reference."""
        for value, name in sorted(self._shown.items(), key=lambda pair: -len(pair[0])):
            text = text.replace(value, f"${{secret:{name}}}")
        return text

    def _escaped(self, match: re.Match[str]) -> str:
        value = self._value(match[1], None)
        escaped = quote(value, safe="")
        if value:
            self._shown[escaped] = match[1]
        return escaped

    def _value(self, name: str, within: float | None) -> str:
        known, now = self._revealed.get(name), self._seconds()
        if known is not None and (within is None or now - self._read[name] < within):
            return known
        try:
            value = self._secrets().get(name)
        except RetryableError:
            if known is None:
                raise
            value = known
        self._revealed[name], self._read[name] = value, now
        if value:
            self._shown[value] = name
        return value
