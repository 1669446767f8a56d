"""Contracts as files of the Open Data Contract Standard, version 3 (YAML): import and export.

Event time, known times and conditions across columns are `customProperties` with names that start with `cumulant.`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cumulant.core.errors import DataError, did_you_mean
from cumulant.core.plan import DType, Field
from cumulant.data.policy import SourcePolicy
from cumulant.data.rules.verdict_spec import Severity, TableRule
from cumulant.data.snapshot import Snapshot
from cumulant.data.spec import EventTime, RuleSpec, SourceSpec

API_VERSION = "v3.1.0"
_LOGICAL: dict[DType, str] = {
    "bool": "boolean",
    "int": "integer",
    "float": "number",
    "str": "string",
    "time": "timestamp",
    "date": "date",
    "bytes": "string",
}
_TYPES: dict[str, DType] = {
    "boolean": "bool",
    "integer": "int",
    "number": "float",
    "string": "str",
    "timestamp": "time",
    "date": "date",
}
_SEVERITY = "cumulant.severity"
_PERSONAL = ("personal", "pii", "restricted-personal")


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What a contract file declares of one table. `notes` names its requirements that are not checked here."""

    name: str
    fields: tuple[Field, ...] = ()
    key: tuple[str, ...] = ()
    event_time: EventTime | None = None
    known_time: dict[str, str | list[str]] = {}
    rules: dict[str, RuleSpec] = {}
    table: TableRule = TableRule()
    personal: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def to_odcs(policy: SourcePolicy, snapshot: Snapshot) -> str:
    """The declaration of a source and the columns of its snapshot as an ODCS file."""
    spec = policy.spec
    properties = [_property(field, policy) for field in snapshot.fields]
    table: dict[str, Any] = {
        "name": snapshot.source,
        "logicalType": "object",
        "physicalType": "table",
        "properties": properties,
    }
    if quality := _row_counts(spec.table):
        table["quality"] = quality
    if custom := _custom(spec):
        table["customProperties"] = custom
    document: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "DataContract",
        "id": snapshot.source,
        "name": snapshot.source,
        "version": "1.0.0",
        "status": "active",
        "schema": [table],
    }
    if policy.fresh is not None:
        days = policy.fresh.total_seconds() / 86400
        amount = int(days) if days.is_integer() else days
        element = f"{snapshot.source}.{spec.time.column}" if spec.time else snapshot.source
        document["slaProperties"] = [{"property": "latency", "value": amount, "unit": "d", "element": element}]
    return _dump(document)


def _property(field: Field, policy: SourcePolicy) -> dict[str, Any]:
    spec = policy.spec
    rule = spec.rules.get(field.name, RuleSpec())
    keyed = field.name in spec.keys
    options = {"minimum": rule.min, "maximum": rule.max, "pattern": rule.pattern}
    values: dict[str, Any] = {
        "name": field.name,
        "logicalType": _LOGICAL[field.dtype],
        "physicalType": field.dtype,
        "description": rule.description or None,
        "primaryKey": keyed or None,
        "primaryKeyPosition": spec.keys.index(field.name) + 1 if keyed else None,
        "required": not field.nullable or None,
        "unique": rule.unique or None,
        "classification": "personal" if field.personal else None,
        "logicalTypeOptions": {name: value for name, value in options.items() if value is not None} or None,
        "quality": _property_quality(rule, policy.nulls.get(field.name)) or None,
        "relationships": [{"type": "foreignKey", "to": rule.references}] if rule.references else None,
        "customProperties": [{"property": _SEVERITY, "value": rule.severity}] if rule.severity else None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _property_quality(rule: RuleSpec, nulls: float | None) -> list[dict[str, Any]]:
    quality: list[dict[str, Any]] = []
    if rule.in_ is not None:
        quality.append({"metric": "invalidValues", "arguments": {"validValues": list(rule.in_)}, "mustBe": 0})
    if nulls is not None:
        quality.append({"metric": "nullValues", "mustBeLessOrEqualTo": round(nulls * 100, 9), "unit": "percent"})
    return quality


def _row_counts(table: TableRule) -> list[dict[str, Any]]:
    if table.min_rows is not None and table.max_rows is not None:
        return [{"metric": "rowCount", "mustBeBetween": [table.min_rows, table.max_rows]}]
    if table.min_rows is not None:
        return [{"metric": "rowCount", "mustBeGreaterOrEqualTo": table.min_rows}]
    if table.max_rows is not None:
        return [{"metric": "rowCount", "mustBeLessOrEqualTo": table.max_rows}]
    return []


def _custom(spec: SourceSpec) -> list[dict[str, Any]]:
    values: dict[str, Any] = {}
    if spec.time is not None:
        values["cumulant.eventTime"] = spec.time.column
        if spec.time.zone:
            values["cumulant.zone"] = spec.time.zone
    if spec.known_time:
        values["cumulant.knownTime"] = dict(spec.known_time)
    if spec.table.where:
        values["cumulant.where"] = list(spec.table.where)
    return [{"property": name, "value": value} for name, value in values.items()]


def _dump(document: dict[str, Any]) -> str:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def from_odcs(text: str, *, table: str | None = None) -> Contract:
    """The rules of an ODCS file, of the object named `table` or else its only one.

    Raises:
        DataError: the text is no ODCS file of version 3, or has no such table.
    """
    document = _parse(text)
    objects = [item for item in document.get("schema") or [] if isinstance(item, Mapping)]
    names = [str(item.get("name")) for item in objects]
    chosen = objects[0] if len(objects) == 1 else next((item for item in objects if item.get("name") == table), None)
    if chosen is None:
        raise DataError(
            f'the contract has no schema object named "{table}"',
            subject=table,
            hint=did_you_mean(table or "", names) or f"it has: {', '.join(names) or 'none'}",
        )
    return _Reader(document, chosen).contract()


def _parse(text: str) -> Mapping[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        document = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark is not None else ""
        raise DataError(f"the contract is not valid YAML{line}", hint="fix the file") from error
    version = str(document.get("apiVersion", "")) if isinstance(document, Mapping) else ""
    if not isinstance(document, Mapping) or document.get("kind") != "DataContract" or not version.startswith("v3"):
        raise DataError(
            "this is no Open Data Contract Standard file of version 3",
            hint="it needs apiVersion: v3.x.x and kind: DataContract",
        )
    return document


class _Reader:
    """Reads one object of a contract; what it cannot check becomes a note."""

    def __init__(self, document: Mapping[str, Any], table: Mapping[str, Any]) -> None:
        self._document, self._table = document, table
        self._name = str(table.get("name", document.get("name", "")))
        self._notes: list[str] = []

    def contract(self) -> Contract:
        properties = [item for item in self._table.get("properties") or [] if "name" in item]
        custom = self._custom()
        rules = {str(item["name"]): self._rule(item) for item in properties}
        event = custom.get("cumulant.eventTime")
        table = msgspec.structs.replace(
            self._table_rule(), fresh=self._fresh(), where=list(custom.get("cumulant.where", []))
        )
        keyed = sorted(
            (item for item in properties if item.get("primaryKey")), key=lambda item: item.get("primaryKeyPosition", 1)
        )
        return Contract(
            name=self._name,
            fields=tuple(self._field(item) for item in properties if _dtype(item) is not None),
            key=tuple(str(item["name"]) for item in keyed),
            event_time=EventTime(column=str(event), zone=custom.get("cumulant.zone")) if event else None,
            known_time=dict(custom.get("cumulant.knownTime", {})),
            rules={name: rule for name, rule in rules.items() if rule != RuleSpec()},
            table=table,
            personal=tuple(str(item["name"]) for item in properties if item.get("classification") in _PERSONAL),
            notes=tuple(self._notes),
        )

    def _custom(self) -> dict[str, Any]:
        listed = [*(self._document.get("customProperties") or []), *(self._table.get("customProperties") or [])]
        return {str(item.get("property")): item.get("value") for item in listed if isinstance(item, Mapping)}

    def _field(self, item: Mapping[str, Any]) -> Field:
        required = bool(item.get("required") or item.get("primaryKey"))
        personal = item.get("classification") in _PERSONAL
        return Field(str(item["name"]), _dtype(item) or "str", nullable=not required, personal=personal)

    def _rule(self, item: Mapping[str, Any]) -> RuleSpec:
        name, options = str(item["name"]), item.get("logicalTypeOptions") or {}
        if item.get("logicalType") and _dtype(item) is None:
            self._notes.append(f"{name}: values of type {item['logicalType']} are not checked")
        for option in set(options) - {"minimum", "maximum", "pattern", "format", "minLength", "maxLength"}:
            self._notes.append(f"{name}: {option} is not checked")
        values: dict[str, Any] = {
            "type": _dtype(item),
            "nulls": 0 if item.get("required") else None,
            "min": options.get("minimum"),
            "max": options.get("maximum"),
            "pattern": options.get("pattern") or _length_pattern(options),
            "in_": item.get("enum"),
            "unique": bool(item.get("unique")),
            "references": _reference(item),
            "severity": _severity(item),
            "description": item.get("description") or "",
        }
        for quality in item.get("quality") or []:
            values |= self._quality(name, quality)
        return RuleSpec(**values)

    def _quality(self, name: str, quality: Mapping[str, Any]) -> dict[str, Any]:
        metric = quality.get("metric") or quality.get("rule")
        arguments = quality.get("arguments") or {}
        members = arguments.get("validValues") or quality.get("validValues")
        pattern = arguments.get("pattern") or quality.get("pattern")
        limit = _limit(quality)
        if metric in ("invalidValues", "validValues") and (members or pattern):
            if limit not in (None, 0):
                self._notes.append(f"{name}: the limit of invalid values is the source's quarantine share")
            return {"in_": list(members)} if members else {"pattern": pattern}
        if metric in ("nullValues", "nullCheck") and limit is not None:
            if quality.get("unit") == "percent" or limit == 0:
                return {"nulls": limit / 100}
        elif metric in ("duplicateValues", "duplicateCount") and limit == 0:
            return {"unique": True}
        self._notes.append(f"{name}: {metric or quality.get('type', 'a quality rule')} is not checked")
        return {}

    def _table_rule(self) -> TableRule:
        low: int | None = None
        high: int | None = None
        for quality in self._table.get("quality") or []:
            metric = quality.get("metric") or quality.get("rule")
            if metric != "rowCount":
                self._notes.append(f"{self._name}: {metric or quality.get('type', 'a quality rule')} is not checked")
                continue
            between: Sequence[int | None] = quality.get("mustBeBetween") or (None, None)
            low = _first(between[0], quality.get("mustBe"), quality.get("mustBeGreaterOrEqualTo"))
            high = _first(between[1], quality.get("mustBe"), quality.get("mustBeLessOrEqualTo"))
            if quality.get("mustBeGreaterThan") is not None:
                low = int(quality["mustBeGreaterThan"]) + 1
            if quality.get("mustBeLessThan") is not None:
                high = int(quality["mustBeLessThan"]) - 1
        return TableRule(min_rows=low, max_rows=high)

    def _fresh(self) -> str | None:
        for item in self._document.get("slaProperties") or []:
            element = str(item.get("element", self._name)).split(".")[0]
            if item.get("property") in ("latency", "freshness") and element == self._name:
                unit = str(item.get("unit", "d")).lower()[:1]
                if unit in ("d", "h", "m"):
                    return f"{item.get('value')}{unit}"
                self._notes.append(f"{self._name}: the unit {item.get('unit')} of {item['property']} is not known")
        return None


def _first(*values: Any) -> int | None:
    return next((int(value) for value in values if value is not None), None)


def _limit(quality: Mapping[str, Any]) -> float | None:
    """The largest allowed count or percentage of a quality rule."""
    for name in ("mustBe", "mustBeLessOrEqualTo", "mustBeLessThan"):
        value = quality.get(name)
        if isinstance(value, (int, float)):
            return float(value)
    return None


def _dtype(item: Mapping[str, Any]) -> DType | None:
    physical = item.get("physicalType")
    if physical in _LOGICAL:
        kind: DType = physical
        return kind
    logical = str(item.get("logicalType", ""))
    if logical == "date" and "time" in str(physical or "").lower():
        return "time"
    return _TYPES.get(logical)


def _severity(item: Mapping[str, Any]) -> Severity | None:
    """Of a property's rules: its own, or `warn` where each of its quality rules is less than an error."""
    for custom in item.get("customProperties") or []:
        if isinstance(custom, Mapping) and custom.get("property") == _SEVERITY:
            return "warn" if custom.get("value") == "warn" else "fail"
    words = [quality.get("severity") for quality in item.get("quality") or []]
    return "warn" if words and all(word in ("info", "warning") for word in words) else None


def _length_pattern(options: Mapping[str, Any]) -> str | None:
    low, high = options.get("minLength"), options.get("maxLength")
    return None if low is None and high is None else f"^(?s:.){{{low or 0},{high if high is not None else ''}}}$"


def _reference(item: Mapping[str, Any]) -> str | None:
    for relation in item.get("relationships") or []:
        target = relation.get("to") if isinstance(relation, Mapping) else None
        if isinstance(target, str) and relation.get("type", "foreignKey") == "foreignKey":
            parts = target.strip("/").replace("schema/", "").replace("/properties/", ".").split(".")
            return ".".join(parts[-2:])
    return None
