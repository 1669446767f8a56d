"""Alerts of a requested training: raised at every evaluation again, so that none is lost or stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.alerting.alert_state import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cumulant.flows.monitoring.state import RetrainRequest

RULE = "retraining"


def of_training(model: str, wanted: RetrainRequest | None, champion: str | None = None) -> Iterator[Finding]:
    """A training that came to nothing, until the next one is asked for; or a version that waits for approval, until
    another one than `champion` is served (None: it is still that of the training).
    """
    if wanted is None:
        return
    if wanted.stage in ("refused", "failed"):
        yield Finding(
            model=model,
            rule=RULE,
            subject="training",
            kind="quality",
            since=wanted.requested,
            moved=f"the training asked for ({wanted.sentence}) came to nothing: {wanted.message}",
            next="read `cumulant runs list`; train by hand once the cause is fixed",
        )
    if wanted.stage == "offered" and champion in (None, wanted.champion):
        yield Finding(
            model=model,
            rule=RULE,
            subject="training",
            kind="quality",
            since=wanted.requested,
            moved=f"a version was trained ({wanted.sentence}) and waits for approval: {wanted.message}",
            next="compare it with `cumulant models compare`, then move the alias or leave it",
        )
