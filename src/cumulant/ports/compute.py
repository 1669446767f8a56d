"""Port `compute`: where a step runs. A step is an importable function with JSON arguments and a JSON result."""

from __future__ import annotations

from typing import Protocol

import msgspec

from cumulant.core.progress import Progress, silent


class Resources(msgspec.Struct, frozen=True):
    cpu: float = 1
    memory: int = 0
    gpu: int = 0
    region: str = "local"


class StepCall(msgspec.Struct, frozen=True):
    """`function` is `module:name`; `arguments` and the result are JSON values. Messages use the `name`, if it has one.

    A function with a parameter `progress` is given one, whose reports reach the caller of the step.
    """

    function: str
    arguments: dict[str, object]
    resources: Resources = Resources()
    name: str = ""

    @property
    def shown(self) -> str:
        return self.name or self.function


class Compute(Protocol):
    """A driver has the capability `isolated` where a step runs in another process, which cannot see the caller's."""

    def run(self, call: StepCall, *, progress: Progress = silent) -> dict[str, object]:
        """Run the step to its end. A CumulantError of the step is raised here as itself.

        `progress` is called by the thread that called this.
        """
        ...
