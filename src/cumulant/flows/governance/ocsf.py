"""Events as records of the Open Cybersecurity Schema Framework (OCSF) 1.4, each in an envelope of CloudEvents 1.0.

A decision about an action is API Activity, a change of a state row Entity Management, and what else happened the base
event. What the schema has no place for is below `unmapped`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from cumulant.core.events import Event
from cumulant.core.version import __version__
from cumulant.flows.governance.row_changes import RowChange
from cumulant.flows.ledger.actions import ACTIONS
from cumulant.flows.ledger.decisions import AccessAllowed, AccessRefused, PersonalDataRead

SCHEMA = "1.4.0"
#: class and category, by the name of the class
_BASE, _API, _ENTITY = ("base_event", 0, 0), ("api_activity", 6003, 6), ("entity_management", 3004, 3)
_CREATE, _READ, _UPDATE, _DELETE, _OTHER = 1, 2, 3, 4, 99
_SUCCESS, _FAILURE = 1, 2
_INFORMATIONAL, _LOW = 1, 2
_USER, _SYSTEM = 1, 3
_DECISIONS = (AccessAllowed.kind, AccessRefused.kind, PersonalDataRead.kind)
#: verbs of actions that make something new, and that remove something
_CREATING = {"train", "register", "import", "ingest", "start", "materialize", "compute", "fill", "post", "serve", "up"}
_REMOVING = {"clean", "forget", "erase", "down"}


def cloud_events(events: Iterable[tuple[Event, list[RowChange]]]) -> Iterator[dict[str, Any]]:
    """Each event, and after it each change of a row that it covers."""
    for event, changes in events:
        decided = event.kind in _DECISIONS
        record = _decision(event) if decided else _base(event)
        yield _envelope(event, event.id, _API if decided else _BASE, record, str(event.data.get("resource", "")))
        for number, change in enumerate(changes, 1):
            subject = f"{change.kind}/{change.key}"
            yield _envelope(event, f"{event.id}-{number}", _ENTITY, _row_change(event, change, number), subject)


def _envelope(
    event: Event, id_: str, class_: tuple[str, int, int], record: dict[str, Any], subject: str
) -> dict[str, Any]:
    source = "/".join(("", "cumulant", event.tenant, event.project, event.environment or ""))
    envelope = {
        "specversion": "1.0",
        "id": id_,
        "source": source.rstrip("/"),
        "type": f"cumulant.{event.kind}",
        "time": event.time.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "dataschema": f"https://schema.ocsf.io/{SCHEMA}/classes/{class_[0]}",
    }
    return envelope | ({"subject": subject} if subject else {}) | {"data": record}


def _decision(event: Event) -> dict[str, Any]:
    data = event.data
    refused, action = event.kind == AccessRefused.kind, str(data["action"])
    decision = "Denied" if refused else "Allowed"
    policies = data.get("policies")
    named = [str(policy) for policy in policies] if isinstance(policies, list) else []
    authorizations = [{"decision": decision, "policy": {"uid": policy}} for policy in named]
    record = _common(event, _API, _activity(action, event.kind), event.id) | {
        "actor": _actor(event, authorizations or [{"decision": decision}]),
        "api": {"operation": action, "service": {"name": "cumulant"}},
        "resources": [{"name": data["resource"], "namespace": event.project}],
        "src_endpoint": _endpoint(str(data.get("source") or "")),
        "severity_id": _LOW if refused else _INFORMATIONAL,
        "status_id": _FAILURE if refused else _SUCCESS,
    }
    if refused:
        record |= {"status_detail": data.get("reason"), "count": data.get("count")}
    return record


def _base(event: Event) -> dict[str, Any]:
    return _common(event, _BASE, _OTHER, event.id) | {"actor": _actor(event)}


def _row_change(event: Event, change: RowChange, number: int) -> dict[str, Any]:
    entity = {"name": change.key, "type": change.kind, "uid": f"{change.kind}/{change.key}"}
    after = entity | {"version": str(change.version), "data": {"sha256": change.after}}
    before = entity | ({} if change.before is None else {"data": {"sha256": change.before}})
    activity = _CREATE if change.before is None else _UPDATE
    record = _common(event, _ENTITY, activity, f"{event.id}-{number}")
    record |= {"actor": _actor(event), "entity": before, "entity_result": after}
    return record | ({} if event.reason is None else {"comment": event.reason})


def _common(event: Event, class_: tuple[str, int, int], activity: int, uid: str) -> dict[str, Any]:
    _, number, category = class_
    unmapped = {
        "data": event.data,
        "run": event.run,
        "cause": event.cause,
        "reason": event.reason,
        "environment": event.environment,
        "region": event.region,
        "previous": event.previous,
        "rows": event.rows,
        "hash": event.hash,
    }
    return {
        "activity_id": activity,
        "category_uid": category,
        "class_uid": number,
        "type_uid": number * 100 + activity,
        "time": round(event.time.timestamp() * 1000),
        "severity_id": _INFORMATIONAL,
        "status_id": _SUCCESS,
        "message": event.kind,
        "metadata": _metadata(event, uid),
        "unmapped": {name: value for name, value in unmapped.items() if value is not None},
    }


def _metadata(event: Event, uid: str) -> dict[str, Any]:
    known = {
        "version": SCHEMA,
        "product": {"name": "Cumulant", "vendor_name": "Cumulant", "version": __version__},
        "uid": uid,
        "sequence": event.seq,
        "log_name": "journal",
        "event_code": event.kind,
        "tenant_uid": event.tenant,
        "correlation_uid": event.data.get("trace") or event.run or event.cause,
    }
    return {name: value for name, value in known.items() if value is not None}


def _actor(event: Event, authorizations: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    user = {"uid": event.actor, "name": event.actor.partition(":")[2] or event.actor}
    user_type = _SYSTEM if event.actor.startswith("service:") else _USER
    return {"user": user | {"type_id": user_type}} | ({"authorizations": authorizations} if authorizations else {})


def _activity(action: str, kind: str) -> int:
    verb = action.partition(".")[2]
    known = ACTIONS.get(action)
    if verb in _REMOVING:
        return _DELETE
    if kind == PersonalDataRead.kind or (known is not None and not known.writes):
        return _READ
    return _CREATE if verb in _CREATING else _UPDATE


def _endpoint(source: str) -> dict[str, str]:
    try:
        return {"ip": str(ipaddress.ip_address(source))}
    except ValueError:
        return {"name": source or "unknown"}


def encode(events: Iterable[tuple[Event, list[RowChange]]]) -> Iterator[bytes]:
    """The records as JSON, one at a time."""
    encoder = msgspec.json.Encoder()
    yield from map(encoder.encode, cloud_events(events))
