"""Secrets, filled in as late as possible: `${secret:NAME}` is text until a client is made with it."""

from __future__ import annotations

from collections.abc import Callable

from cumulant.ports.secrets import Secrets
from cumulant.project.texts import SECRET


class Vault:
    """Reveals references to secrets, and takes revealed values out of any text that is about to be shown."""

    def __init__(self, secrets: Callable[[], Secrets]) -> None:
        self._secrets = secrets
        self._revealed: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Vault({len(self._revealed)} revealed)"

    def reveal(self, text: str) -> str:
        """`text` with each `${secret:NAME}` filled in. Never store or print the result.

        Raises:
            NotFoundError: no such secret; the error names where it was looked for.
        """
        return SECRET.sub(lambda match: self._value(match[1]), text)

    def redact(self, text: str) -> str:
        """`text` with every value revealed so far replaced by its reference."""
        for name, value in sorted(self._revealed.items(), key=lambda pair: -len(pair[1])):
            if value:
                text = text.replace(value, f"${{secret:{name}}}")
        return text

    def _value(self, name: str) -> str:
        if name not in self._revealed:
            self._revealed[name] = self._secrets().get(name)
        return self._revealed[name]
