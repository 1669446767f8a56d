"""Scoring of one piece of a file: the protocol of a model, and the answers with the columns passed through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cumulant.core.errors import RequestError, did_you_mean
from cumulant.flows.serving.batch.answer_parts import NO_FAULTS

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data.files.streaming import Piece
    from cumulant.flows.serving.batch.parallel_engine import Lanes
    from cumulant.serving.protocol.request_rules import Fault


class PreparedPiece(NamedTuple):
    """A piece ready for the engine, with the columns that go through to the answers."""

    passthrough: pl.DataFrame
    feeds: dict[str, Any]
    rows: int
    #: rows by the check that they fail, of a model that checks rows
    faults: Mapping[Fault, int] = NO_FAULTS


class BatchWork(Protocol):
    """One model. `passthrough` are the columns that go before the answers."""

    passthrough: Sequence[str]

    def columns(self, head: pl.DataFrame) -> list[str]:
        """The columns to read of a file that has those of `head`. Raises RequestError where it lacks one."""
        ...

    def remarks(self, head: pl.DataFrame) -> list[str]:
        """What a person should know of columns that are absent or not read."""
        ...

    def prepare(self, piece: Piece) -> PreparedPiece:
        """Raises RequestError for a value that the model cannot take; names the column and row."""
        ...

    def warnings(self, faults: Mapping[Fault, int], rows: int) -> tuple[str, ...]:
        """What a person should know of rows that failed checks, out of so many rows."""
        ...

    def score(self, prepared: PreparedPiece, rows: slice) -> Any:
        """Outputs of the engine for some of the rows, in one thread."""
        ...

    def answers(self, prepared: PreparedPiece, scored: Sequence[Any]) -> pl.DataFrame:
        """A column for each answer, from what was scored in slices."""
        ...


def answer_piece(work: BatchWork, prepared: PreparedPiece, lanes: Lanes) -> pl.DataFrame:
    """The selected columns and the answers, in the order of the rows."""
    import polars as pl

    scored = lanes.each(lambda rows: work.score(prepared, rows), prepared.rows)
    answers = work.answers(prepared, scored)
    clash = next((name for name in prepared.passthrough.columns if name in answers.columns), None)
    if clash is not None:
        raise RequestError(
            f'the column "{clash}" cannot be kept: an answer has that name', subject=clash, hint="rename the column"
        )
    return pl.concat([prepared.passthrough, answers], how="horizontal")


def refuse_lacking(wanted: Sequence[str], have: Sequence[str], *, hint: str) -> None:
    """Raises RequestError where a column is not there."""
    lacking = [name for name in wanted if name not in have]
    if lacking:
        near = did_you_mean(lacking[0], [name for name in have if name not in wanted])
        raise RequestError(f"the rows lack {', '.join(lacking)}", subject=lacking[0], hint=near or hint)
