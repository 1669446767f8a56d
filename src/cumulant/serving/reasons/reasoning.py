"""Reasons of answers: the request parameter, the rows to explain, and the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

import msgspec
import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import IntegrityError, RequestError
from cumulant.core.servable import Answer, Reason
from cumulant.servable.description import Floats, Matrix
from cumulant.servable.engine import Array
from cumulant.servable.scorer import TINY, Scorer, labels
from cumulant.serving.errors import HttpError
from cumulant.serving.protocol.row_counts import MOST_ROWS
from cumulant.serving.reasons.occlusion import OccludedRows, make_explainer
from cumulant.serving.scheduling.runner import Feeds

#: name of the output, of the parameter and of the field
NAME = "reasons"
#: the output of requests with reasons: JSON, a list a row
OUTPUT: Mapping[str, tuple[str, list[int]]] = {NAME: ("BYTES", [-1])}
#: the same as the model's metadata show it
DESCRIBED: Mapping[str, object] = {"name": NAME, "datatype": "BYTES", "shape": [-1], "parameters": {"optional": True}}
#: warning where an overloaded model answers without reasons
LEFT_OUT = "reasons are left out: the model has more to do than it can do in time"


class ReasonsRequest(msgspec.Struct, frozen=True, gc=False):
    """Requested reasons: `count` per row; `decided`: only of rows that are predicted true."""

    count: int
    decided: bool = False


class Inquiry(msgspec.Struct, gc=False):
    """Further rows for the engine, and the answers to explain."""

    feeds: Feeds
    rows: int
    answers: Sequence[Answer]
    question: OccludedRows
    #: [n] of the answers
    scores: Floats
    #: [n] the class that a row's score is of
    chosen: NDArray[np.int64]
    count: int


class Reasoning:
    """The reasons of one servable.

    Raises:
        IntegrityError: as `make_explainer`, or only decisions are explained and the model makes none.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, servable = scorer, scorer.servable
        self._explainer = make_explainer(scorer)
        assert servable.reasons is not None
        self.spec = servable.reasons
        if self.spec.when == "decision" and servable.task != "binary":
            text = f"{servable.name} explains decisions only, and is no binary model"
            raise IntegrityError(text, subject=servable.name)
        self._yes = labels(servable)[-1] if servable.task == "binary" else None
        self.most = len(scorer.features)
        self._usual = min(self.spec.count, self.most)

    def read(self, count: object) -> ReasonsRequest | None:
        """Reasons to compute for a requested `count` per row; None: not in the request.

        Raises:
            RequestError: it is no number of reasons that the model can give.
        """
        if count is None:
            return (
                None
                if self.spec.when == "requested"
                else ReasonsRequest(self._usual, decided=self.spec.when == "decision")
            )
        if type(count) is not int or not 0 <= count <= self.most:
            hint = f"the model reads {self.most} features; 0 requests no reasons"
            raise RequestError(f'"{NAME}" must be a whole number from 0 to {self.most}', subject=NAME, hint=hint)
        return ReasonsRequest(count) if count else None

    def card(self) -> dict[str, object]:
        """Description of the reasons for the model card."""
        return {"method": self.spec.method, "when": self.spec.when, "usual": self._usual, "most": self.most}

    @property
    def usual(self) -> ReasonsRequest:
        """Default request of reasons, without a count."""
        return ReasonsRequest(self._usual)

    def plan(
        self, why: ReasonsRequest, matrix: Matrix, answers: Sequence[Answer], raw: Sequence[Array]
    ) -> Inquiry | None:
        """Rows for the engine that explain the answers to the rows of `matrix` [n, k]; None where there are none.

        Raises:
            HttpError: 413, it would be more rows than one request may have.
        """
        places = [k for k, answer in enumerate(answers) if not why.decided or answer.prediction == self._yes]
        if not places:
            return None
        if len(places) * self.most > MOST_ROWS:
            raise self._too_many(len(places))
        picked = matrix[places]
        outputs = self._scorer.finish(raw)[places]
        chosen = _chosen(outputs)
        question = self._explainer.select_rows(picked)
        return Inquiry(
            self._scorer.feeds(question.rows),
            len(question.rows),
            [answers[k] for k in places],
            question,
            self._scores(outputs, chosen),
            chosen,
            why.count,
        )

    def _too_many(self, rows: int) -> HttpError:
        text = f"reasons of {rows} rows by {self.most} features are more than {MOST_ROWS} rows to score"
        return HttpError(413, text, hint=f'send fewer rows in one request, or request "{NAME}": 0')

    def attach(self, inquiry: Inquiry, raw: Sequence[Array]) -> None:
        """Attach reasons to the answers, from the engine's outputs for the inquiry's rows."""
        question = inquiry.question
        row_scores = (
            self._scores(self._scorer.finish(raw), inquiry.chosen[question.owner]) if inquiry.rows else np.empty(0)
        )
        contributions = question.contributions(inquiry.scores, row_scores)
        for answer, row in zip(inquiry.answers, contributions, strict=True):
            answer.reasons = self._reasons(row, inquiry.count)

    def explain(self, matrix: Matrix, outputs: Floats, count: int) -> list[tuple[Reason, ...]]:
        """The largest `count` reasons of each answer of `outputs` ([n] or [n, classes], as `Scorer.score_matrix` gives
        them) to the rows of `matrix` [n, k]: those of `plan` and `attach`, in one thread and for any number of rows.
        """
        reasons: list[tuple[Reason, ...]] = []
        step = max(1, MOST_ROWS // self.most)
        for at in range(0, len(matrix), step):
            question, part = self._explainer.select_rows(matrix[at : at + step]), outputs[at : at + step]
            chosen = _chosen(part)
            row_scores = np.empty(0)
            if len(question.rows):
                row_scores = self._scores(self._scorer.score_matrix(question.rows), chosen[question.owner])
            parts = question.contributions(self._scores(part, chosen), row_scores)
            reasons += [self._reasons(row, count) for row in parts]
        return reasons

    def _scores(self, outputs: Floats, chosen: NDArray[np.int64]) -> Floats:
        """[n] Log-odds of the chosen class, or the number."""
        if self._scorer.servable.task == "regression":
            return outputs
        picked = outputs[np.arange(len(outputs)), chosen] if outputs.ndim == 2 else outputs
        p = np.clip(picked, TINY, 1 - TINY)
        log_odds: Floats = np.log(p / (1 - p))
        return log_odds

    def _reasons(self, row: Floats, count: int) -> tuple[Reason, ...]:
        """The largest `count` of a row, equal ones in the features' order. What the engine calls no number is none."""
        known = np.nan_to_num(row, posinf=np.finfo(np.float64).max, neginf=np.finfo(np.float64).min)
        order = np.argsort(-np.abs(known), kind="stable")[:count].tolist()
        names, codes, values = self._scorer.features, self.spec.codes, known.tolist()
        return tuple(
            Reason(
                feature=names[k],
                contribution=values[k],
                direction="raises" if values[k] > 0 else "lowers",
                code=codes.get(names[k], ""),
            )
            for k in order
            if values[k]
        )


def _chosen(outputs: Floats) -> NDArray[np.int64]:
    """[n] The class that a row's score is of."""
    return np.argmax(outputs, axis=1) if outputs.ndim == 2 else np.zeros(len(outputs), np.int64)


def read_reasons(reasoning: Reasoning | None, count: object) -> ReasonsRequest | None:
    """As `Reasoning.read`; a model without reasons refuses any number but 0.

    Raises:
        RequestError: as there, or the model gives no reasons.
    """
    if reasoning is not None:
        return reasoning.read(count)
    if count is None or (type(count) is int and count == 0):
        return None
    hint = (
        "declare reasons under serving: in the project file, and train again; a model packaged from elsewhere has none"
    )
    raise RequestError("this model gives no reasons", subject=NAME, hint=hint)


def read_reasons_output(reasoning: Reasoning | None, count: object, wanted: Sequence[str]) -> ReasonsRequest | None:
    """As `read_reasons`, for a request that may select outputs, among them that of the reasons.

    Raises:
        RequestError: as `read_reasons`.
    """
    if count is None and wanted and reasoning is not None:
        return reasoning.usual if NAME in wanted else None
    return read_reasons(reasoning, count)


def read_reasons_query(target: bytes, declared: object) -> object:
    """Requested number of reasons in the query of `target`; `declared`: that of the body.

    Raises:
        RequestError: the query's is no number, or both are given.
    """
    if b"?" not in target:
        return declared
    values = parse_qs(target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True).get(NAME)
    if values is None:
        return declared
    if declared is not None or len(values) > 1:
        raise RequestError(f'"{NAME}" is given twice', subject=NAME)
    text = values[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
