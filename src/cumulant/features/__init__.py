"""Features: defined once by the user, computed point-in-time for training and from stored state for serving.

What `features.py` files import is here, and the faces of the engine. Names are loaded on first use, so that
importing this room costs next to nothing and the server never imports Polars.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cumulant.features.advancer import Advancer
    from cumulant.features.define import source
    from cumulant.features.events import FeaturesComputed, KeyForgotten, StateFilled
    from cumulant.features.expressions import Expr
    from cumulant.features.frames import known_times
    from cumulant.features.functions import coalesce, col, concat, greatest, least, lit, when
    from cumulant.features.incremental import GrownSource, changed_features, unchanged_rows, with_changes
    from cumulant.features.known import counts_itself, show_moment
    from cumulant.features.loading import Definition, Definitions, collect, load
    from cumulant.features.materialization import Materialized, materialize
    from cumulant.features.offline import compute
    from cumulant.features.online import OnlineFeatures, Vectors
    from cumulant.features.parsing import parse, parse_predict_at
    from cumulant.features.partitions import compute_within
    from cumulant.features.plan import compile_plan
    from cumulant.features.polars import evaluate, expression
    from cumulant.features.post_reader import Advanced
    from cumulant.features.repair import StoredKey, forget_key, stored_key
    from cumulant.features.rows import compile_node
    from cumulant.features.state import STATE_FORMAT
    from cumulant.features.state_writer import StateWriter

_MODULES = {
    "Advanced": "post_reader", "Advancer": "advancer", "StateWriter": "state_writer",
    "Definition": "loading", "Definitions": "loading", "Expr": "expressions", "FeaturesComputed": "events",
    "Materialized": "materialization", "StateFilled": "events",
    "OnlineFeatures": "online", "Vectors": "online", "coalesce": "functions", "col": "functions",
    "collect": "loading", "compile_node": "rows", "compile_plan": "plan", "compute": "offline",
    "compute_within": "partitions",
    "GrownSource": "incremental", "changed_features": "incremental",
    "unchanged_rows": "incremental", "with_changes": "incremental",
    "concat": "functions", "counts_itself": "known",
    "evaluate": "polars", "expression": "polars", "greatest": "functions", "is_late": "known",
    "known_times": "frames", "least": "functions", "lit": "functions", "load": "loading",
    "materialize": "materialization", "parse": "parsing", "parse_predict_at": "parsing",
    "KeyForgotten": "events", "StoredKey": "repair", "forget_key": "repair", "stored_key": "repair",
    "STATE_FORMAT": "state", "show_moment": "known", "source": "define", "when": "functions",
}  # fmt: skip

__all__ = [
    "STATE_FORMAT", "Advanced", "Advancer", "Definition", "Definitions", "Expr", "FeaturesComputed",
    "GrownSource", "KeyForgotten", "Materialized", "OnlineFeatures",
    "StateFilled", "StateWriter", "StoredKey", "Vectors", "changed_features", "coalesce", "col", "collect",
    "compile_node", "compile_plan", "compute", "compute_within", "concat", "counts_itself",
    "evaluate", "expression", "forget_key", "greatest", "is_late", "known_times", "least",
    "lit", "load", "materialize", "parse", "parse_predict_at", "show_moment", "source", "stored_key", "unchanged_rows",
    "when", "with_changes",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
