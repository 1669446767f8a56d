"""Port `secrets`: values that are resolved as late as possible and never printed."""

from __future__ import annotations

from typing import Protocol


class Secrets(Protocol):
    def get(self, name: str) -> str:
        """The secret's value. Raises NotFoundError naming where it was looked for, never a value."""
        ...
