"""Features in words: what a definition computes, for people who do not read the code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import UNSET

from cumulant.core.expr import Call, Column, Feature, Literal, Moment, Node, columns, features
from cumulant.core.plan import FeaturePlan, FeatureSpec, Lookup, Window
from cumulant.core.units import from_micros
from cumulant.features.definition.known_time import show_micros
from cumulant.features.definition.tiers import Tier

_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "**",
    "eq": "=",
    "ne": "≠",
    "lt": "<",
    "le": "≤",
    "gt": ">",
    "ge": "≥",
    "and": "and",
    "or": "or",
}
_SENTENCES = {
    "not": "not ({0})",
    "is_null": "{0} is missing",
    "fill_null": "{0}, or {1} where missing",
    "coalesce": "the first of {all} that is not missing",
    "when": "{1} where {0}, else {2}",
    "is_in": "{0} is one of {members}",
    "seconds_between": "seconds from {0} to {1}",
    "neg": "-{0}",
}
_AGGREGATIONS = {
    "count": "number",
    "sum": "sum",
    "mean": "mean",
    "min": "least",
    "max": "greatest",
    "std": "standard deviation",
    "distinct": "number of different values",
    "last": "last known value",
}

#: what computes a feature from raw rows
TIERS: Mapping[Tier, str] = {"everywhere": "everywhere", "batch": "batch only"}


def batch_only_text(functions: Iterable[str]) -> str:
    """What the tier `batch` means for a project with these `prepare` functions."""
    return f"batch only: made of rows that {', '.join(functions)} returns; servers expect such rows and do not run it"


def kind(feature: FeatureSpec) -> str:
    """`column`, `expression`, `lookup` or `window`."""
    if feature.lookup is not None:
        return "lookup"
    if feature.window is not None:
        return "window"
    return "column" if isinstance(feature.expr, Column) else "expression"


def definition(feature: FeatureSpec) -> str:
    """What the feature is, as a sentence without a full stop."""
    if feature.lookup is not None:
        return _lookup(feature.lookup)
    if feature.window is not None:
        return _window(feature.window)
    if isinstance(feature.expr, Column):
        return f"{feature.expr.name} of the row itself"
    return "" if feature.expr is None else expression(feature.expr)


def personal(plan: FeaturePlan) -> frozenset[str]:
    """Features whose values would show a personal value as it is: copies, texts made of one, last ones, extremes."""
    hidden = {name: {field.name for field in source.fields if field.personal} for name, source in plan.sources.items()}
    shown: set[str] = set()
    for feature in plan.features:  # in dependency order
        if _shows(feature, plan.entity, hidden, shown):
            shown.add(feature.name)
    return frozenset(shown)


def _shows(feature: FeatureSpec, entity: str, hidden: Mapping[str, set[str]], shown: set[str]) -> bool:
    if feature.lookup is not None:
        return feature.lookup.column in hidden[feature.lookup.source]
    if (window := feature.window) is not None:
        read = columns(window.value) if window.value is not None else frozenset()
        return window.agg in ("last", "min", "max") and bool(read & hidden[window.source])
    if feature.expr is None or not (columns(feature.expr) & hidden[entity] or features(feature.expr) & shown):
        return False
    return isinstance(feature.expr, Column | Feature) or feature.dtype == "str"


def expression(node: Node) -> str:
    """An expression as people write formulas."""
    match node:
        case Column(name) | Feature(name):
            return name
        case Literal(value):
            return _literal(value)
        case Moment(micros):
            return from_micros(micros).strftime("%Y-%m-%d %H:%M UTC")
        case Call(op, args, options):
            return _call(op, args, options)


def _literal(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return (
        {None: "nothing", True: "true", False: "false"}[value]
        if value is None or isinstance(value, bool)
        else str(value)
    )


def _call(op: str, args: tuple[Node, ...], known: Mapping[str, Any]) -> str:
    words = [expression(argument) for argument in args]
    if op in _INFIX:
        inner = [
            f"({word})" if _is_infix(argument_node) else word for word, argument_node in zip(words, args, strict=True)
        ]
        return f" {_INFIX[op]} ".join(inner)
    if op in _SENTENCES:
        return _SENTENCES[op].format(
            *words, all=", ".join(words), members=", ".join(map(str, known.get("members", ())))
        )
    if "zone" in known:
        return f"{op.replace('_', ' ')} of {words[0]} in {known['zone']}"
    rest = ", ".join([*words[1:], *[f"{key} {value}" for key, value in known.items() if value is not None]])
    return f"{op.replace('_', ' ')} of {words[0]}" + (f" ({rest})" if rest else "")


def _is_infix(node: Node) -> bool:
    return isinstance(node, Call) and node.op in _INFIX


def _row(source: str) -> str:
    return "row" if source == "rows" else f"{source} row"  # a common name of a source


def _lookup(lookup: Lookup) -> str:
    rows = f"{_row(lookup.source)} with the same {_and(lookup.by)}"
    newest = "newest" if lookup.order is UNSET else "newest (by event time)"
    text = f"{lookup.column} of the {newest} {rows} that is known at the prediction"
    return text if lookup.within_us is None else f"{text}, at most {show_micros(lookup.within_us)} old"


def _window(window: Window) -> str:
    rows = f"{_row(window.source)}s with the same {_and(window.by)}" if window.by else f"all {_row(window.source)}s"
    what = _AGGREGATIONS[window.agg] if window.order is UNSET else "value with the latest event time"
    if window.value is None:
        what = f"{what} of"
    elif window.agg == "count":
        what = f"{what} of known {expression(window.value)} over"
    elif window.agg == "mean" and _is_condition(window.value):
        what = f"share with {expression(window.value)} among"
    else:
        what = f"{what} of {expression(window.value)} over"
    return f"{what} {rows} that became known in the last {show_micros(window.span_us)}"


def _is_condition(node: Node) -> bool:
    return isinstance(node, Call) and node.op in {
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "and",
        "or",
        "not",
        "is_in",
        "is_null",
    }


def _and(names: tuple[str, ...]) -> str:
    return " and ".join(names)
