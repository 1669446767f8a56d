"""Secrets from a mapping."""

from __future__ import annotations

from collections.abc import Mapping

from cumulant.core.errors import NotFoundError


class MemorySecrets:
    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def get(self, name: str) -> str:
        if name not in self._values:
            raise NotFoundError(f"no secret named {name}: looked in memory", subject=name)
        return self._values[name]
