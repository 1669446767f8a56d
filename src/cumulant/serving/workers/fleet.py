"""All workers of one server, as one of them calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Duties(Protocol):
    """Commands that every worker executes."""

    async def do(self, verb: str, arguments: Mapping[str, Any]) -> Any:
        """Raises CumulantError where it cannot."""
        ...


class Fleet(Protocol):
    """All workers, this one among them."""

    async def everywhere(self, verb: str, arguments: Mapping[str, Any]) -> list[Any]:
        """Result of the command on each worker.

        Raises:
            CumulantError: of the first that could not.
        """
        ...


class SingleWorker:
    """Fleet of one worker."""

    def __init__(self, duties: Duties) -> None:
        self._duties = duties

    async def everywhere(self, verb: str, arguments: Mapping[str, Any]) -> list[Any]:
        return [await self._duties.do(verb, arguments)]
