"""Routes of the operations of projects, which are looked up by the part of a path after the project.

A router tries its routes one after the other, and there are more than a hundred operations.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Match, Route

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

#: the path of a project; what follows it begins with a word of its own in each operation
PREFIX = "/v1/projects/{project}"
_BEFORE = PREFIX.partition("{")[0]
#: in a scope, the route that matches
_MATCH = "cumulant.match"


class ProjectRoutes(BaseRoute):
    """One route in the place of many, whose paths are `PREFIX`, a word and more. Those of a word keep their order."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_word: dict[str, list[Route]] = {}
        for route in routes:
            self._by_word.setdefault(_word(route.path), []).append(route)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        partial: tuple[Match, Scope] = (Match.NONE, {})
        if scope["type"] != "http":
            return partial
        for route in self._by_word.get(_word(scope["path"]), ()):
            match, child = route.matches(scope)
            if match is Match.FULL:
                return match, {**child, _MATCH: route}
            if match is Match.PARTIAL and partial[0] is Match.NONE:
                partial = match, {**child, _MATCH: route}
        return partial

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = route = scope.pop(_MATCH)
        await route.handle(scope, receive, send)


def _word(path: str) -> str:
    """What follows the project; empty where the path is none of a project."""
    if not path.startswith(_BEFORE):
        return ""
    parts = path.removeprefix(_BEFORE).split("/", 2)
    return parts[1] if len(parts) > 1 else ""
