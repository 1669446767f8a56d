"""Whether requests have enough different keys for each arm of a release to get some."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.units import to_micros
from cumulant.flows.serving.predictions import FOLDER as PREDICTIONS

if TYPE_CHECKING:
    from cumulant.ports.traffic import Traffic
    from cumulant.project.project import Project
    from cumulant.release.policy import ReleasePolicy
    from cumulant.release.steps import ReleaseStep

#: keys that the smallest arm should be expected to get: with fewer, a handful of callers decides for all
FEW = 20
#: recent traffic, and how many requests of it are looked through at most
_RECENT = timedelta(days=7)
_PIECE, _MOST = 5_000, 1_000_000


def too_few(project: Project, model: str, policy: ReleasePolicy) -> str | None:
    """A warning where recent requests have too few keys for the smallest share; None where they suffice, where rows
    go by no key, or where nothing tells. A log that cannot be read is a warning too: it stops no release.
    """
    if policy.key is None:
        return None
    step, part = smallest(policy)
    enough = math.ceil(FEW / part)
    try:
        count = known_keys(project, model, policy.key, enough=enough)
    except CumulantError as error:
        return f"whether requests have enough values of {policy.key} cannot be told: {error.message}"
    return None if count is None or count >= enough else _said(policy.key, count, step, part)


def smallest(policy: ReleasePolicy) -> tuple[ReleaseStep, float]:
    """The step with the smallest arm, and that arm's share of the keys."""
    shared = [(step, min(step.weight, 100 - step.weight) / 100) for step in policy.steps if step.weight]
    return min(shared, key=lambda one: one[1])


def known_keys(project: Project, model: str, key: str, *, enough: int) -> int | None:
    """How many different keys requests of the last week had, at most `enough`; None where no log tells of any.

    The gateway's log tells where it works by that key already, else the prediction log, which holds what a model reads.

    Raises:
        CumulantError: a log cannot be read.
    """
    since, traffic = datetime.now(UTC) - _RECENT, project.traffic()
    routes = traffic.in_force(model)
    found = set[str]()
    if routes is not None and routes.key == key:
        found = _some(_gateway_keys(traffic, model, to_micros(since)), enough)
    if not found:
        found = _some(_logged_keys(project.state / PREDICTIONS, model, key, since), enough)
    return len(found) or None


def _some(keys: Iterator[str], enough: int) -> set[str]:
    found = set[str]()
    for key in keys:
        found.add(key)
        if len(found) >= enough:
            break
    return found


def _gateway_keys(traffic: Traffic, model: str, since: int) -> Iterator[str]:
    cursor = ""
    for _ in range(_MOST // _PIECE):
        exchanges, cursor = traffic.exchanges(cursor, limit=_PIECE)
        if not exchanges:
            return
        yield from (
            one.key for one in exchanges if one.model == model and one.predicts and one.key and one.time > since
        )


def _logged_keys(log: Path, model: str, key: str, since: datetime) -> Iterator[str]:
    if not log.is_dir():
        return
    import pyarrow as pa
    import pyarrow.compute as pc

    from cumulant.serving.prediction_log.storage.scanning import batches

    wanted = (pc.field("model") == model) & ~pc.field("shadow")
    wanted = wanted & (pc.field("time") > pa.scalar(since, pa.timestamp("us", "UTC")))
    found = batches(log, ["request"], wanted=wanted, since=since.date())
    texts = itertools.chain.from_iterable(batch["request"].to_pylist() for batch in found)
    for text in itertools.islice(texts, _MOST):
        value = msgspec.json.decode(text, type=dict[str, object]).get(key)
        if value is not None:
            yield str(value)


def _said(key: str, count: int, step: ReleaseStep, part: float) -> str:
    arm = "candidate" if step.weight < 50 else "champion"
    expected = count * part
    about = f"about {math.floor(expected)}" if expected >= 1 else "one at most, and perhaps none"
    return (
        f"requests of the last week had {count:,} different values of {key}: in {step.label} the {arm} gets"
        f" {100 * part:.3g}% of them, which is {about}, where {FEW} or more are wanted; name a release.key of more"
        " values, leave it out (each request goes by itself), or give the smallest arm more (release.stages)"
    )
