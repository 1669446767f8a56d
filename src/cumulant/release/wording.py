"""Figures of a release in words."""

from __future__ import annotations

from cumulant.release.state import Board


def harm_told(board: Board) -> str:
    """`errors rose from 0.5% to 1.6%`, with what the difference may be."""
    if board.champion is None or board.candidate is None:
        return f"{board.metric} became worse"
    if board.metric == "disagreement":
        return (
            f"decisions differ in {told(board.candidate, '%')} of the pairs, more than {told(board.margin or 0, '%')}"
        )
    text = f"{board.metric} became worse: {told(board.candidate, board.unit)} against the champion's "
    text += told(board.champion, board.unit)
    if board.low is not None and board.high is not None:
        text += f" (difference {told(board.low, board.unit)} to {told(board.high, board.unit)})"
    return text


def told(value: float, unit: str) -> str:
    """`value` for a person: shares in percent, others with their unit."""
    if unit == "%":
        return f"{value * 100:.2f}%"
    return f"{value:.3g} {unit}".rstrip()
