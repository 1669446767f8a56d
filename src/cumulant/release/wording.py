"""Figures of a release in words."""

from __future__ import annotations

import math

from cumulant.release.state import Board


def version_name(version: str) -> str:
    """`version 3`; of an external server, which is known by its URL, `server http://...`."""
    return f"server {version}" if "://" in version else f"version {version}"


def describe_harm(board: Board) -> str:
    """`errors rose from 0.5% to 1.6%`, with what the difference may be."""
    if board.champion is None or board.candidate is None:
        return f"{board.metric} became worse"
    if board.metric == "disagreement":
        limit = format_value(board.margin or 0, "%")
        return f"decisions differ in {format_value(board.candidate, '%')} of the pairs, more than {limit}"
    text = f"{board.metric} became worse: {format_value(board.candidate, board.unit)} against the champion's "
    text += format_value(board.champion, board.unit)
    if board.low is not None and board.high is not None:
        text += f" (difference {format_value(board.low, board.unit)} to {format_value(board.high, board.unit)})"
    return text


def rolled_back_beside(version: str) -> str:
    """Why a release ended whose routes `cumulant rollback` replaced, of which the release itself knows nothing more."""
    return f"all requests were sent to version {version} beside the release"


def format_value(value: float, unit: str) -> str:
    """`value` for a person: shares in percent, others with their unit."""
    if unit == "%":
        return f"{value * 100:.2f}%"
    return f"{rounded(value)} {unit}".rstrip()


def rounded(value: float) -> str:
    """With three figures, or all before the point: `1,234`, `12.3`, `0.00123`."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def span(seconds: float) -> str:
    """A length of time: `2.58 min`, `1,750 days`."""
    if math.isinf(seconds):
        return "for ever"
    for unit, size in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{rounded(seconds / size)} {unit}"
    return f"{rounded(seconds)} s"
