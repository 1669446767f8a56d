"""The prediction log's record: request, response, model and state."""

from __future__ import annotations

import msgspec

_DECODE = msgspec.json.Decoder().decode


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One scored row. Times are microseconds since 1970 UTC.

    `request` and `outputs` are JSON objects as text. Personal fields stand in `request` as keyed hashes, the same
    that join labels and key the online state.
    """

    #: of the request: one that the gateway or the server gave; without a gateway, the caller's where it gave one
    id: str
    #: place in the request, from 0
    row: int = 0
    #: when it was answered
    time: int
    #: the moment that the prediction was made for; None where the model has none
    event_time: int | None = None
    model: str
    version: str
    #: the arm that the caller was assigned to, and the one that answered
    arm: str = ""
    served_arm: str = ""
    #: scored beside the answer, never sent
    shadow: bool = False
    #: of the feature plan
    fingerprint: str = ""
    #: seconds between the prediction's moment and the newest stored state used
    state_age: float | None = None
    request: str
    outputs: str
    #: from the request's last byte to its answer
    latency_us: int
    #: how a degraded answer was made: `servable`, `cached` or `constant`; empty for a full one
    fallback: str = ""
    #: the worker's name, of one life of one process; its sequence numbers have no gap unless a record was lost
    worker: str
    sequence: int
    tenant: str = ""
    region: str = ""
    #: the caller's own name of the request, where `id` is ours; it joins nothing
    caller_id: str = ""
    #: rules of the data contract that the row broke, as `amt:min,carrier:in`
    invalid: str = ""
    #: who sent the request: the name of its token, `anonymous`, or `service:gateway` where no tokens are used
    principal: str = ""
    #: of a sample of the requests: the stored features of the row, a JSON object
    features: str = ""
    #: stored features of the row that may lack events, as `sum_7d,mean_7d`: its moment is before what is stored begins
    incomplete: str = ""


def read_object(text: str) -> dict[str, object]:
    """The object in a logged `request` or `outputs`; an empty one where that is no object."""
    try:
        decoded = _DECODE(text)
    except msgspec.DecodeError:
        return {}
    return decoded if isinstance(decoded, dict) else {}
