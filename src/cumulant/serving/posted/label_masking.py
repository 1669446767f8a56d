"""Personal values of posted labels, masked before they are stored: ingestion joins by the same keyed hashes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cumulant.core.masking import is_masked, mask
from cumulant.core.plan import Field
from cumulant.core.servable import GraphServable, Servable
from cumulant.serving.prediction_log.personal_values import convert_value, personal_fields, typed_text

#: what a label itself is made of, whatever columns of the same names a source has
_PARTS = frozenset({"id", "request_id", "prediction_id", "row", "label", "known_time", "model", "weight"})


def label_fields(servables: Iterable[Servable | GraphServable]) -> dict[str, Field]:
    """The personal fields by which labels of these models may name a prediction, or that may come with them."""
    fields = {field.name: field for servable in servables for field in personal_fields(servable)}
    return {name: field for name, field in fields.items() if name not in _PARTS}


def mask_label(label: Mapping[str, object], fields: Mapping[str, Field], salt: bytes) -> dict[str, object]:
    """A label with keyed hashes in place of its personal values.

    A date or time that is not in ISO 8601 stays: only the project knows the format in which its source writes it.
    """
    masked = dict(label)
    for name in fields.keys() & label.keys():
        value, field = label[name], fields[name]
        if value is None or is_masked(value):
            continue
        typed = convert_value(typed_text(value, field), field)
        if not (field.dtype in ("date", "time") and isinstance(typed, str)):
            masked[name] = mask(typed, salt)
    return masked
