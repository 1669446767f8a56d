"""Metadata of a graph for use without its servable: columns, classes, calibration, threshold, target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from onnx import ModelProto

    from cumulant.core.servable import Servable

PREFIX = "cumulant."


def describe_graph(graph: ModelProto, servable: Servable, target: str = "") -> None:
    """Add the properties to `graph`; others that it has stay. Lists and objects are JSON."""
    threshold = servable.threshold
    properties: dict[str, object] = {
        "model": servable.name,
        "task": servable.task,
        "target": target,
        "columns": [declared.feature for declared in servable.inputs],
        "inputs": servable.inputs,
        "classes": servable.classes,
        "calibration": servable.calibration,
        "threshold": 0.5 if threshold is None and servable.task == "binary" else threshold,
    }
    for name, value in properties.items():
        if value not in (None, "", ()):
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            graph.metadata_props.add(key=f"{PREFIX}{name}", value=text)
    names = ", ".join(declared.feature for declared in servable.inputs)
    graph.graph.input[0].doc_string = f"float32 [rows, {len(servable.inputs)}], columns in this order: {names}"
