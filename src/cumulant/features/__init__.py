"""Features: what `features.py` files import. Names are loaded on first use, so that the server never imports Polars."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cumulant.features.definition.definitions import source
    from cumulant.features.definition.expressions import Expr
    from cumulant.features.definition.functions import coalesce, col, concat, greatest, least, lit, when
    from cumulant.features.offline.polars_compiler import expression

_MODULES = {
    "source": "definition.definitions",
    "Expr": "definition.expressions",
    "expression": "offline.polars_compiler",
    **dict.fromkeys(("coalesce", "col", "concat", "greatest", "least", "lit", "when"), "definition.functions"),
}

__all__ = ["Expr", "coalesce", "col", "concat", "expression", "greatest", "least", "lit", "source", "when"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
