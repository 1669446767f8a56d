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
from cumulant.flows.features.stored_tables import fillings
from cumulant.flows.serving.serve import USES
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
    plans: dict[str, object] = {}
    for filling in fillings(project):
        if filling.as_of is None:
            plans.pop(filling.table, None)  # the last filling of a table is the one that counts
            plans[filling.table] = filling.plan
    served = find_references(project)[1] | {use.table for use in list_uses(project.state / USES)}
    served |= shared_tables(project)
    newest = {digest(plan): name for name, plan in plans.items()}
    names = sorted(name for name in plans if name in served or name in newest.values())
    tables = [OnlineTable(name=name, plan=read_plan(plans[name]), served=name in served) for name in names]
    wanted = [*sources]
    return [table for table in tables if any(map(table.reads, wanted))]


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
