"""The section `monitoring.alerts` of the project file: rules, budget and reminders."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Duration = Annotated[str, Meta(extra={"text": "duration"})]


class AlertRuleSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One rule; missing values are the built-in ones."""

    level: Annotated[
        Literal["off", "info", "warning", "critical"] | None,
        Meta(description="Severity. `critical` is sent regardless of the budget; `off` raises no alert."),
    ] = None
    for_: Annotated[
        Duration | None, Meta(description="How long the finding must persist, at every evaluation, before it fires.")
    ] = msgspec.field(default=None, name="for")
    resolve_after: Annotated[
        Duration | None,
        Meta(description="How long the finding must be absent before the alert resolves; overrides the section's."),
    ] = None


class AlertsSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rules of alerts, and limits on notifications."""

    rules: Annotated[
        dict[str, AlertRuleSpec],
        Meta(
            description="Rules by name: `data_fault`, `feed`, `quality`, `covariate`, `prior`, `concept`, `outcome`, "
            "`loss`, `estimated_loss`, `objective`, `freshness`, `feature_mismatch`, `feature_job`, `retraining`, "
            "`volume`, and those of your own findings."
        ),
    ] = {}
    budget: Annotated[
        str,
        Meta(
            description="Most messages, as a number per period. What exceeds it is in one digest a day; "
            "critical alerts are always sent.",
            extra={"text": "rate"},
        ),
    ] = "20/month"
    resolve_after: Annotated[
        Duration,
        Meta(
            description="How long a finding must be absent, at every evaluation, before its alert resolves; "
            "5 minutes for the rules `objective` and `freshness`, where that does not say otherwise."
        ),
    ] = "1h"
    remind: Annotated[
        Duration,
        Meta(description="First reminder of an alert that is not acknowledged; each next after twice as long."),
    ] = "1d"
    reminders: Annotated[int, Meta(ge=0, le=20, description="Most reminders of one alert.")] = 3
