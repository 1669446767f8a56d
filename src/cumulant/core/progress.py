"""Progress inside a step: ephemeral, for a person who waits. What is worth keeping is an event."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def __call__(self, text: str, share: float | None = None) -> None:
        """Report what is being done; `share` of the step done, from 0 to 1, where it is known."""
        ...


def silent(text: str, share: float | None = None) -> None:
    """Progress that is not reported."""


def begins_step(text: str, share: float | None) -> bool:
    """Whether a progress text is the name of a step. Waiting for another process is part of the step that waits."""
    return share is None and not text.startswith("waiting for ")
