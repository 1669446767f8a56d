"""The options of a server, as a command takes them: derived from `serving.options`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal

import typer

from cumulant.serving.options import Option, options


def with_server_options(names: Collection[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give the decorated command these options of a server (such as `log_keep`), which it takes as `**given`.

    Raises:
        KeyError: a server has no such option.
    """
    known = {item.key: item for item in options()}
    chosen = [_parameter(known[name]) for name in names]

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function)
        own = [item for item in signature.parameters.values() if item.kind is not inspect.Parameter.VAR_KEYWORD]
        function.__signature__ = signature.replace(parameters=[*own, *chosen])  # type: ignore[attr-defined]
        function.__annotations__ |= {item.name: item.annotation for item in chosen}
        function.__annotations__.pop("given", None)
        return function

    return declare


def _parameter(item: Option) -> inspect.Parameter:
    help_ = item.help if item.section is None else f"{item.help} Overrides {item.section}."
    if item.kind == "flag":
        return _keyword(item, bool, False, typer.Option(item.name, help=help_))
    metavar = None if item.choices else item.metavar
    if item.kind == "several":
        note = typer.Option(item.name, metavar=metavar, show_default=False, help=f"{help_} May be repeated.")
        return _keyword(item, list[str] | None, None, note)
    if item.kind == "number":
        return _keyword(item, int | None, None, typer.Option(item.name, metavar=metavar, min=1, help=help_))
    kind = str if item.choices is None else Literal[item.choices]
    return _keyword(item, kind | None, None, typer.Option(item.name, metavar=metavar, help=help_))


def _keyword(item: Option, kind: Any, default: object, note: Any) -> inspect.Parameter:
    return inspect.Parameter(
        item.key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, note]
    )
