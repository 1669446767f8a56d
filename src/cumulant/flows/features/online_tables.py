"""The tables of online state that rows of streams are put into: those that are served, and the newest of each plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.ids import digest
from cumulant.core.plan import FeaturePlan, read_plan
from cumulant.features.offline.groups import groups_of
from cumulant.flows.deployment.versions import find_references
from cumulant.flows.ledger.ledger_records import STEP, StepRecord, read_step
from cumulant.flows.serving.serve import ONLINE_STATE, USES, state_table
from cumulant.flows.serving.services import list_uses, shared_tables

if TYPE_CHECKING:
    from cumulant.project.project import Project


class OnlineTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table and the plan that it was filled for. `served`: a process reads it, or is to."""

    name: str
    plan: FeaturePlan
    served: bool

    def reads(self, source: str) -> bool:
        """Whether a window or lookup reads rows of the source."""
        return any(group.source == source for group in groups_of(self.plan))


def online_tables(project: Project, sources: Iterable[str]) -> list[OnlineTable]:
    """The tables that are kept up to date with any of these sources, sorted.

    Tables that were filled as of a moment stay as they are.

    Raises:
        CumulantError: the journal does not answer; a plan is of a newer version of Cumulant.
    """
    filled = _filled(project)
    served = find_references(project)[1] | {use.table for use in list_uses(project.state / USES)}
    served |= shared_tables(project)
    newest = {digest(_inputs(step)["plan"]): name for name, step in filled.items()}
    names = sorted(name for name in filled if name in served or name in newest.values())
    tables = [
        OnlineTable(name=name, plan=read_plan(_inputs(filled[name])["plan"]), served=name in served) for name in names
    ]
    wanted = [*sources]
    return [table for table in tables if any(map(table.reads, wanted))]


def _filled(project: Project) -> dict[str, StepRecord]:
    """The last step that filled each table, in the order of time."""
    steps = [read_step(row) for row in project.journal().rows(STEP)]
    steps = [step for step in steps if step.name == ONLINE_STATE and step.status == "done"]
    filled: dict[str, StepRecord] = {}
    for step in sorted(steps, key=lambda step: step.started):
        if _inputs(step).get("as_of") is None:
            name = str(_inputs(step).get("table") or state_table(step.inputs))
            filled.pop(name, None)
            filled[name] = step
    return filled


def _inputs(step: StepRecord) -> dict[str, object]:
    return step.inputs if isinstance(step.inputs, dict) else {}


def stream_notes(project: Project, plan: FeaturePlan) -> list[str]:
    """Of which streams the rows will not be put into the online features of a plan, and why."""
    streamed = (name for name in plan.sources if project.policies.source(name).spec.stream is not None)
    read = {group.source for group in groups_of(plan)}
    reasons = (why_not(plan, name) for name in streamed if name in read)
    return [f"rows of the stream enter online features with the next filling only: {text}" for text in reasons if text]


def why_not(plan: FeaturePlan, source: str) -> str | None:
    """Why rows of a source cannot be put into the state of a plan; None where they can."""
    of = plan.sources[source]
    if not of.key:
        return f"source {source} has no key, so that a row that comes again would count twice"
    return None


def text_of(error: CumulantError, project: Project) -> str:
    """An error as it may be shown."""
    return project.vault.redact(error.message)
