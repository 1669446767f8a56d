"""Scoring of rows of a project's source: their features, then the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cumulant.flows.serving.batch.answer_columns import decision_columns, reasons_column
from cumulant.flows.serving.batch.piece_scoring import PreparedPiece, refuse_lacking
from cumulant.flows.serving.batch.request_checks import ColumnChecks

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.servable import Reason
    from cumulant.data.files.streaming import Piece
    from cumulant.data.spec import SourceSpec
    from cumulant.servable.description import Floats, Values
    from cumulant.servable.scorer import Scorer
    from cumulant.serving.protocol.reasons import Reasoning
    from cumulant.serving.protocol.request_rules import Fault

Compute = Callable[["pl.DataFrame"], "pl.DataFrame"]


class Explained(NamedTuple):
    """`each` reasons of every answer, by `reasoning`."""

    reasoning: Reasoning
    each: int


class _Scored(NamedTuple):
    scores: Floats
    #: one a row; None where none are wanted
    reasons: list[tuple[Reason, ...]] | None


class RowWork:
    """A servable with a feature plan. `compute` gives the features of rows that have the request fields.

    With `refuse_invalid`, rows that break the data contract refuse the file, else they are counted.
    """

    def __init__(
        self,
        scorer: Scorer,
        declared: SourceSpec,
        compute: Compute,
        keep: Sequence[str],
        explained: Explained | None = None,
        *,
        refuse_invalid: bool = False,
    ) -> None:
        self._explained = explained
        self._checks = ColumnChecks(scorer.servable, refuse=refuse_invalid)
        self._scorer, self._declared, self._compute, self._keep = scorer, declared, compute, keep
        plan = scorer.servable.plan
        self._plan = plan
        self._request_names = {field.name for field in plan.request}
        self._required = [plan.predict_at.column] if plan.predict_at else []
        self.passthrough: Sequence[str] = list(keep)

    def columns(self, head: pl.DataFrame) -> list[str]:
        self._fields(head.clear())
        refuse_lacking(self._keep, head.columns, hint="it is asked to be kept")
        self.passthrough = list(dict.fromkeys([*self._key(head), *self._keep]))
        fields = [field.name for field in self._plan.request if field.name in head.columns]
        return list(dict.fromkeys([*self.passthrough, *fields])) or head.columns[:1]

    def remarks(self, head: pl.DataFrame) -> list[str]:
        fields = [field.name for field in self._plan.request]
        absent = [name for name in fields if name not in head.columns]
        others = [name for name in head.columns if name not in (*fields, *self.passthrough)]
        groups = {"not in the rows, and so taken as missing": absent, "not read by the model, and so ignored": others}
        remarks = [f"{text}: {', '.join(names)}" for text, names in groups.items() if names]
        if absent:
            from cumulant.data.files.prediction_rows import prepare_note

            remarks[0] += prepare_note(self._declared.prepare)
        return remarks

    def _key(self, head: pl.DataFrame) -> list[str]:
        """The key's columns, as far as the file has them; personal ones only where --keep names them."""
        source = self._plan.sources.get(self._plan.entity)
        if source is None:
            return []
        hidden = {field.name for field in source.fields if field.personal}
        return [name for name in source.key if name in head.columns and name not in hidden]

    def _fields(self, rows: pl.DataFrame, first: int = 0) -> pl.DataFrame:
        from cumulant.data.files.prediction_rows import as_fields

        return as_fields(
            rows,
            self._plan.request,
            missing=self._declared.missing,
            rules=self._declared.rules,
            required=self._required,
            others=[
                *self._scorer.servable.unread,
                *(name for name in self.passthrough if name not in self._request_names),
            ],
            first=first,
            prepare=self._declared.prepare,
        )

    def prepare(self, piece: Piece) -> PreparedPiece:
        fields = self._fields(piece.rows, piece.first)
        computed = self._compute(fields)
        faults = self._checks.faults(fields, computed, first=piece.first)
        columns = {name: _values(computed[name]) for name in self._scorer.features}
        matrix = self._scorer.encoder.matrix(columns)
        return PreparedPiece(piece.rows.select(self.passthrough), {"matrix": matrix}, piece.rows.height, faults)

    def warnings(self, faults: Mapping[Fault, int], rows: int) -> tuple[str, ...]:
        return self._checks.warnings(faults, rows)

    def score(self, prepared: PreparedPiece, rows: slice) -> _Scored:
        matrix = prepared.feeds["matrix"][rows]
        scores = self._scorer.score_matrix(matrix)
        explained = self._explained
        return _Scored(
            scores, None if explained is None else explained.reasoning.explain(matrix, scores, explained.each)
        )

    def answers(self, prepared: PreparedPiece, scored: Sequence[Any]) -> pl.DataFrame:  # noqa: ARG002 - as Work
        columns = decision_columns(np.concatenate([part.scores for part in scored]), self._scorer.servable)
        if self._explained is None:
            return columns
        reasons = [row for part in scored for row in part.reasons]
        return columns.with_columns(reasons_column(reasons, coded=bool(self._explained.reasoning.spec.codes)))


def _values(series: pl.Series) -> Values:
    """Numbers as an array, null as NaN; anything else as the encoder takes it from a list."""
    import polars as pl

    if series.dtype.is_numeric():
        return series.cast(pl.Float64).to_numpy()
    return series.to_list()
