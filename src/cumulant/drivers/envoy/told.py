"""Lines of Envoy's log as exchanges."""

from __future__ import annotations

import msgspec

from cumulant.core.masking import mask
from cumulant.core.traffic import LONGEST_ID, Exchange, predicts
from cumulant.drivers.envoy.clusters import arm_of

#: the caller went away before the answer; its request did not come in time
LEFT, SLOW = 499, 408
#: Envoy's flags, the first that is there says the fault
_FAULTS = (
    ("UT", "timeout"),
    ("SI", "timeout"),
    ("DT", "timeout"),
    ("UPE", "reset"),
    ("RL", "rate"),
    ("UO", "overflow"),
    ("RLSE", "rate"),
    ("UF", "connect"),
    ("UH", "connect"),
    ("NC", "connect"),
    ("UC", "reset"),
    ("UR", "reset"),
    ("LR", "reset"),
)


class Line(msgspec.Struct):
    """One line, with the fields of `bootstrap.LOGGED`."""

    request: str | None = None
    caller_id: str | None = None
    method: str | None = None
    path: str | None = None
    start: str | int | None = None
    took: str | int | None = None
    took_ms: str | int | None = None
    model: str | None = None
    revision: str | int | None = None
    forced: str | int | None = None
    assigned: str | None = None
    served: str | None = None
    cluster: str | None = None
    status: str | int | None = None
    flags: str | None = None
    details: str | None = None
    key: str | None = None


def exchange_of(line: Line, salt: bytes) -> Exchange | None:
    """What a line tells; None where the request was no model's. Keys stand as hashes under `salt`, else not at all."""
    if not line.model:
        return None
    answered = line.details == "via_upstream"
    took = _number(line.took) if line.took is not None else _number(line.took_ms) * 1000
    request, caller_id = (line.request or "")[:LONGEST_ID], line.caller_id or ""
    return Exchange(
        request=request,
        caller_id="" if caller_id == request or len(caller_id) > LONGEST_ID else caller_id,
        time=_number(line.start) + took,
        model=line.model,
        assigned=line.assigned or arm_of(line.cluster or "", line.model),
        served=(line.served or "") if answered else "",
        status=_number(line.status) or LEFT,
        duration_us=took,
        key=mask(line.key, salt) if line.key and salt else "",
        forced=_number(line.forced) == 1,
        fault="" if answered or _number(line.status) == SLOW else _fault(line.flags or ""),
        revision=_number(line.revision),
        predicts=predicts(line.method or "POST", line.path or "/"),
    )


def _fault(flags: str) -> str:
    present = set(flags.split(","))
    return next((fault for flag, fault in _FAULTS if flag in present), "")


def _number(value: str | int | None) -> int:
    if isinstance(value, int):
        return value
    return int(value) if value and value.isdigit() else 0
