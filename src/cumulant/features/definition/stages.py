"""The order in which the expressions of a plan are computed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from cumulant.core.expr import features
from cumulant.core.plan import FeatureSpec


def expression_stages(specs: Sequence[FeatureSpec], measured: Collection[str]) -> Iterator[list[FeatureSpec]]:
    """The expressions in stages of those that do not need each other; `measured`: what is known before."""
    done = set(measured)
    waiting = [spec for spec in specs if spec.expr is not None]
    while waiting:
        stage = [spec for spec in waiting if spec.expr is not None and features(spec.expr) <= done]
        assert stage, "a plan is in dependency order"
        yield stage
        done |= {spec.name for spec in stage}
        waiting = [spec for spec in waiting if spec.name not in done]
