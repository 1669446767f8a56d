"""The workers of one server, as one of them sees them: what is asked of one is asked of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Duties(Protocol):
    """What every worker does when it is asked."""

    async def do(self, verb: str, arguments: Mapping[str, Any]) -> Any:
        """Raises CumulantError where it cannot."""
        ...


class Fleet(Protocol):
    """All workers, this one among them."""

    async def everywhere(self, verb: str, arguments: Mapping[str, Any]) -> list[Any]:
        """What each worker answers.

        Raises:
            CumulantError: of the first that could not.
        """
        ...


class SingleWorker:
    """A fleet of one."""

    def __init__(self, duties: Duties) -> None:
        self._duties = duties

    async def everywhere(self, verb: str, arguments: Mapping[str, Any]) -> list[Any]:
        return [await self._duties.do(verb, arguments)]
