"""Findings of a comparison."""

from __future__ import annotations

from typing import Literal

import msgspec

from cumulant.monitoring.drift.profiles import ProfileBlock, Role, Skipped

#: `concept` needs labels: no distribution of inputs shows it. `volume`: the number of rows changed
Kind = Literal["data_fault", "covariate", "prior", "concept", "volume"]
#: what is compared of a column; `few`, `many` and `gap` are of the number of rows, `future` of their times
What = Literal[
    "absent",
    "missing",
    "unreadable",
    "unseen",
    "impossible",
    "constant",
    "shift",
    "tails",
    "few",
    "many",
    "gap",
    "future",
]


class ShareChange(msgspec.Struct, frozen=True):
    """Values of the column whose share of the rows changed, from `before` to `now`."""

    values: str
    before: float
    now: float


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """Rows with `value` in another `column`: their share of the rows, and how much of the change happens there."""

    column: str
    value: str
    rows: float
    carries: float


class DriftDistances(msgspec.Struct, frozen=True, kw_only=True):
    """Other measures of the same change; None where they are not defined. Wasserstein in the reference's deviations."""

    psi: float
    kolmogorov_smirnov: float | None = None
    wasserstein: float | None = None


class DriftFinding(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm: a significant change that matters.

    `effect` with its 95% interval: of a shift the Jensen-Shannon distance less expected sampling noise, of a fault the
    share of rows. All figures are of the newest alarming window, of `span` windows together. `p` is at most `needed`.
    `since`: the first window of the change; `windows`, `alarmed`: the number and places of alarming windows; `active`:
    the newest is one.
    """

    feature: str
    role: Role
    kind: Kind
    what: What
    effect: float
    low: float | None
    high: float | None
    least: float
    p: float
    needed: float
    before: float | None
    now: float | None
    since: ProfileBlock
    until: ProfileBlock
    windows: int
    active: bool
    span: int
    weight: float
    design: float
    parts: tuple[ShareChange, ...] = ()
    segments: tuple[Segment, ...] = ()
    examples: tuple[str, ...] = ()
    distances: DriftDistances | None = None
    alarmed: tuple[int, ...] = ()

    @property
    def rank(self) -> float:
        """What orders findings: how far above the least that matters, times what the model makes of the feature."""
        return self.weight * self.effect / self.least


class ColumnStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A column in the newest window, alarming or not. `missing`: None of a label, which only becomes known later."""

    feature: str
    role: Role
    effect: float
    missing: float | None
    alarming: bool


class Unsteady(msgspec.Struct, frozen=True):
    """A column that moves within the reference, and of how many of its newest windows it is compared with."""

    feature: str
    windows: int


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """All alarms, the most important first.

    `newest`: the place of the newest window that has enough rows. `assumed_independent`: the reference is one block,
    which shows no dependence between rows. `identifiers`: columns of which only the rate of new values is compared.
    `unsteady`: columns that drift within the reference and are compared with its newest windows.
    """

    findings: tuple[DriftFinding, ...]
    columns: tuple[ColumnStatus, ...]
    windows: tuple[ProfileBlock, ...]
    alarming: tuple[bool, ...]
    newest: int
    reference_rows: int
    assumed_independent: bool
    looks: int
    level: float
    skipped: tuple[Skipped, ...] = ()
    extra: tuple[str, ...] = ()
    left_out: int = 0
    identifiers: tuple[str, ...] = ()
    unsteady: tuple[Unsteady, ...] = ()

    @property
    def active(self) -> tuple[DriftFinding, ...]:
        """What is alarming in the newest window."""
        return tuple(finding for finding in self.findings if finding.active)

    def is_over(self, finding: DriftFinding) -> bool:
        """Whether a finding is past: no alarm in the newest window, and of a shift no distance there that matters."""
        now = next((column.effect for column in self.columns if column.feature == finding.feature), 0.0)
        return not finding.active and (finding.what not in ("shift", "constant") or now < finding.least)
