"""The key of a version's reference of the review queue, computed without the engines that make it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.core.ids import digest

if TYPE_CHECKING:
    from cumulant.flows.registry.model_record import ModelRecord


def inputs_of(record: ModelRecord) -> dict[str, object]:
    return {"servable": record.servable.key, "work": record.work, "format": 2}


def key_of(record: ModelRecord) -> str:
    """Where among the objects the reference of that version is."""
    return f"review/{digest(inputs_of(record))}"
