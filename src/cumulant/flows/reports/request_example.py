"""What a caller sends to a served model: the raw fields of one row, and a curl line that can be pasted."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime

from cumulant.core.plan import Field
from cumulant.core.servable import Servable
from cumulant.core.structs import struct_from
from cumulant.flows.reports.content import FieldReport

_SAMPLES: dict[str, object] = {
    "bool": True,
    "int": 1,
    "float": 1.5,
    "str": "text",
    "date": "2026-01-31",
    "bytes": "AA==",
}
#: shown in place of a personal value: an example must not carry anybody's data
PERSONAL = "..."
#: where `cumulant serve` listens by default
LOCAL_URL = "http://127.0.0.1:8080"


def fields(servable: Servable) -> list[FieldReport]:
    """The request's fields with an example of each."""
    return [struct_from(FieldReport, field, example=_text(example(field, servable))) for field in servable.plan.request]


def example(field: Field, servable: Servable) -> object:
    """A value for the field: of the servable's own example, else one it was trained on; never a personal one."""
    if field.personal:
        return PERSONAL if field.dtype == "str" else _sample(field)
    if (value := servable.example.get(field.name)) is not None:
        return value
    rule = servable.rules.get(field.name)
    members = rule.members if rule is not None and rule.members else ()
    if field.dtype == "str":
        members = (
            *members,
            *(text for each in servable.inputs if each.feature == field.name for text in each.categories),
        )
    return members[0] if members else _sample(field)


def curl(servable: Servable, url: str = LOCAL_URL) -> str:
    """A line for a shell that sends one row to the server at `url`."""
    row = {field.name: example(field, servable) for field in servable.plan.request}
    body = shlex.quote(json.dumps(row, ensure_ascii=False))
    target = shlex.quote(f"{url}/v1/models/{servable.name}/predict")
    return f"curl -s {target} \\\n  -H 'content-type: application/json' \\\n  -d {body}"


def _sample(field: Field) -> object:
    if field.dtype == "time":
        return datetime(2026, 1, 31, 12, tzinfo=UTC).isoformat().replace("+00:00", "Z")
    return _SAMPLES[field.dtype]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
