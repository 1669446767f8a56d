"""Steps and stages called in this process, each call recorded."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from cumulant.core.errors import CumulantError, DefinitionError, StepFailedError
from cumulant.core.progress import Progress, silent
from cumulant.ports.compute import StepCall, WorkerBlock, WorkerStage, check_cancelled


class DirectCompute:
    """Calls the step's function here; `calls` holds the steps."""

    def __init__(self) -> None:
        self.calls: list[StepCall] = []

    def run(
        self,
        call: StepCall,
        *,
        key: str | None = None,
        cancel: threading.Event | None = None,
        progress: Progress = silent,
    ) -> dict[str, object]:
        del key

        def report(text: str, share: float | None = None) -> None:
            check_cancelled(call, cancel)
            progress(text, share)

        check_cancelled(call, cancel)
        self.calls.append(call)
        module, _, name = call.function.partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise DefinitionError(f"step {call.function} cannot be imported", subject=call.function) from error
        try:
            reporting = {"progress": report} if "progress" in inspect.signature(function).parameters else {}
            result = function(**msgspec.json.decode(msgspec.json.encode(call.arguments)), **reporting)
        except CumulantError:
            raise
        except Exception as error:  # the edge to a step's own code
            raise StepFailedError(f"step {call.function} raised {type(error).__name__}: {error}") from error
        try:
            return msgspec.json.decode(msgspec.json.encode(result), type=dict[str, object])
        except (TypeError, msgspec.MsgspecError) as error:
            raise DefinitionError(f"the result of step {call.function} is not a JSON object") from error


class DirectHistory:
    """A session of an engine of the history in a folder of the caller. `calls`: how often each function was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: dict[str, int] = {}

    def run(self, inputs: Sequence[bytes], stages: Sequence[WorkerStage]) -> list[WorkerBlock]:
        blocks = [WorkerBlock(place, 0, data) for place, data in enumerate(inputs)]
        for stage in stages:
            module, _, name = stage.function.partition(":")
            arguments = msgspec.json.decode(msgspec.json.encode(stage.arguments))
            compute = getattr(importlib.import_module(module), name)(arguments)
            by_key = groupby(sorted(blocks, key=lambda block: block[:2]), key=lambda block: block.key)
            blocks = []
            for key, of_key in by_key:
                self.calls[name] = self.calls.get(name, 0) + 1
                blocks.extend(compute(key, list(of_key)))
        return blocks
