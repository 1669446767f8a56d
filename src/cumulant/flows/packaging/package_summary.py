"""The summary of a packaged model, as pairs of label and value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.core.errors import join_names
from cumulant.core.servable import GraphServable, Parity, TensorSpec
from cumulant.flows.reports.wording import size

if TYPE_CHECKING:
    from cumulant.flows.packaging.package_model import PackagedModel

_NAMES = 12
_ORIGINAL = "original"  # the form of a candidate that is the graph as it came


def summary_rows(packaged: PackagedModel) -> list[tuple[str, object]]:
    """Source, size, inputs, outputs and results of the checks."""
    servable = packaged.servable
    lines: list[tuple[str, object]] = [
        ("from", f"{packaged.source} ({packaged.kind})"),
        ("size", size(packaged.size)),
    ]
    if not isinstance(servable, GraphServable):
        return [
            *lines,
            ("task", servable.task),
            ("features", join_names([feature.feature for feature in servable.inputs], _NAMES)),
        ]
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
        ("columns", join_names(servable.columns, _NAMES)),
        *[("output" if index == 0 else "", tensor(spec)) for index, spec in enumerate(servable.outputs)],
        ("classes", join_names(servable.classes, _NAMES)),
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
