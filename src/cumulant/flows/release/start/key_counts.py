"""Counts of distinct keys in recent requests, and the warning where an arm would get too few."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.units import to_micros
from cumulant.flows.traffic.clients import exchanges_of, traffic_of
from cumulant.ports.log import Log

if TYPE_CHECKING:
    from cumulant.ports.traffic import ExchangeSource
    from cumulant.project.project import Project
    from cumulant.release.policy import ReleasePolicy
    from cumulant.release.steps import ReleaseStep

#: keys that the smallest arm should be expected to get: with fewer, a handful of callers decides for all
FEW = 20
#: recent traffic, and how many requests of it are looked through at most
_RECENT = timedelta(days=7)
_PIECE, _MOST = 5_000, 1_000_000


def few_keys_warning(project: Project, model: str, policy: ReleasePolicy) -> str | None:
    """A warning where recent requests have too few keys for the smallest share, or the log is unreadable; else None."""
    if policy.key is None:
        return None
    step, part = smallest_arm(policy)
    enough = math.ceil(FEW / part)
    try:
        count = count_known_keys(project, model, policy.key, enough=enough)
    except CumulantError as error:
        return f"whether requests have enough values of {policy.key} is unknown: {error.message}"
    return None if count is None or count >= enough else _warning_text(policy.key, count, step, part)


def smallest_arm(policy: ReleasePolicy) -> tuple[ReleaseStep, float]:
    """The step with the smallest arm, and that arm's share of the keys."""
    shared = [(step, min(step.weight, 100 - step.weight) / 100) for step in policy.steps if step.weight]
    return min(shared, key=lambda arm: arm[1])


def count_known_keys(project: Project, model: str, key: str, *, enough: int) -> int | None:
    """How many different keys requests of the last week had, at most `enough`; None where no log has any.

    Raises:
        CumulantError: a log cannot be read.
    """
    since, routes = datetime.now(UTC) - _RECENT, traffic_of(project).in_force(model)
    keys = set[str]()
    if routes is not None and routes.key == key:
        keys = _distinct_keys(_gateway_keys(exchanges_of(project), model, to_micros(since)), enough)
    if not keys:
        keys = _distinct_keys(_logged_keys(project.log(), model, key, since), enough)
    return len(keys) or None


def _distinct_keys(keys: Iterator[str], enough: int) -> set[str]:
    distinct = set[str]()
    for key in keys:
        distinct.add(key)
        if len(distinct) >= enough:
            break
    return distinct


def _gateway_keys(source: ExchangeSource, model: str, since: int) -> Iterator[str]:
    cursor = ""
    for _ in range(_MOST // _PIECE):
        exchanges, cursor = source.exchanges(cursor, limit=_PIECE)
        if not exchanges:
            return
        yield from (
            exchange.key
            for exchange in exchanges
            if exchange.model == model and exchange.predicts and exchange.key and exchange.time > since
        )


def _logged_keys(log: Log, model: str, key: str, since: datetime) -> Iterator[str]:
    if not log.days():
        return
    import pyarrow as pa
    import pyarrow.compute as pc

    from cumulant.serving.prediction_log.storage.scanning import batches

    wanted = (pc.field("model") == model) & ~pc.field("shadow")
    wanted = wanted & (pc.field("time") > pa.scalar(since, pa.timestamp("us", "UTC")))
    logged = batches(log, ["request"], wanted=wanted, since=since.date())
    texts = itertools.chain.from_iterable(batch["request"].to_pylist() for batch in logged)
    for text in itertools.islice(texts, _MOST):
        value = msgspec.json.decode(text, type=dict[str, object]).get(key)
        if value is not None:
            yield str(value)


def _warning_text(key: str, count: int, step: ReleaseStep, part: float) -> str:
    arm = "candidate" if step.weight < 50 else "champion"
    expected = count * part
    about = f"about {math.floor(expected)}" if expected >= 1 else "one at most, and perhaps none"
    return (
        f"requests of the last week had {count:,} different values of {key}: in {step.label} the {arm} gets"
        f" {100 * part:.3g}% of them, which is {about}, where {FEW} or more are wanted; name a release.key of more"
        " values, leave it out (each request goes by itself), or give the smallest arm more (release.stages)"
    )
