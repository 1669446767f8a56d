"""What the flows that a project uses need of its drivers, each declared by the flow itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cumulant.flows.data import validate
from cumulant.flows.deployment import deployment
from cumulant.flows.ledger import step_function
from cumulant.flows.serving import serve
from cumulant.flows.stack import stack_processes

if TYPE_CHECKING:
    from cumulant.ports.driver import Need
    from cumulant.project.project import Project

_DECLARED: tuple[Callable[[Project], list[Need]], ...] = (
    validate.driver_needs,
    step_function.driver_needs,
    serve.driver_needs,
    stack_processes.driver_needs,
    deployment.driver_needs,
)


def driver_needs(project: Project) -> list[Need]:
    """The needs of every flow, in the order in which a model passes through them."""
    return [need for declared in _DECLARED for need in declared(project)]
