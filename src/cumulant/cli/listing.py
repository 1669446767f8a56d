"""What a list says of the rows that it does not show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def tell_rest(console: Console, shown: int, total: int, *, option: str = "--limit N") -> None:
    """Say `20 of 1,234; --limit N for more` where a list is cut."""
    if shown < total:
        console.print(f"{shown:,} of {total:,}; {option} for more", style="dim")
