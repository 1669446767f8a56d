"""The summary of a packaged model, as pairs of label and value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.core.servable import GraphServable, Parity, TensorSpec

if TYPE_CHECKING:
    from cumulant.flows.packaging.package_model import PackagedModel

_NAMES = 12
_ORIGINAL = "original"  # the form of a candidate that is the graph as it came


def summary_rows(packaged: PackagedModel) -> list[tuple[str, object]]:
    """Source, size, inputs, outputs and results of the checks."""
    servable = packaged.servable
    lines: list[tuple[str, object]] = [
        ("from", f"{packaged.source} ({packaged.kind})"),
        ("size", _bytes(packaged.size)),
    ]
    if not isinstance(servable, GraphServable):
        return [*lines, ("task", servable.task), ("features", _few([feature.feature for feature in servable.inputs]))]
    return [*lines, *graph_rows(servable)]


def graph_rows(servable: GraphServable) -> list[tuple[str, object]]:
    """Inputs and outputs of a graph, and results of the checks."""
    return [
        ("converted by", servable.lineage.get("converter", "")),
        *[("input" if index == 0 else "", tensor(spec)) for index, spec in enumerate(servable.inputs)],
        *[
            ("state" if index == 0 else "", f"{state.output} -> {state.input}")
            for index, state in enumerate(servable.state)
        ],
        ("columns", _few(servable.columns)),
        *[("output" if index == 0 else "", tensor(spec)) for index, spec in enumerate(servable.outputs)],
        ("classes", _few(servable.classes)),
        ("parity", parity_text(servable.parity) + _later_form_text(servable)),
        ("batching", f"{'exact' if servable.batching.exact else 'off'}: {servable.batching.reason}"),
    ]


def tensor(spec: TensorSpec) -> str:
    sizes = ", ".join(
        ("n" if index == 0 else "any") if size == -1 else str(size) for index, size in enumerate(spec.shape)
    )
    return f"{spec.name}  {spec.datatype} [{sizes}]"


def parity_text(measured: Parity | None) -> str:
    if measured is None:
        return "not compared: no sample was given"
    return (
        f"{measured.rows:,} rows, differences up to {measured.max_difference:.2g} (allowed {measured.tolerance:g}), "
        f"{measured.flips} decisions change"
    )


def _later_form_text(servable: GraphServable) -> str:
    """Agreement of a smaller or faster form, which took the graph's place after the comparison."""
    chosen = next((candidate for candidate in servable.candidates if candidate.chosen), None)
    if servable.parity is None or chosen is None or chosen.kind == _ORIGINAL:
        return ""
    return f"; {chosen.kind}, put in place since, agrees with it on {chosen.agreement:.2%}"


def _few(names: tuple[str, ...] | list[str]) -> str:
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")


def _bytes(size: int) -> str:
    for unit, step in (("MiB", 2**20), ("KiB", 2**10)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size} bytes"
