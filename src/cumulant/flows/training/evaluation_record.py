"""The records of the steps `evaluate` and `gate` and of the flow `evaluate`."""

from __future__ import annotations

from datetime import datetime

import msgspec

from cumulant.flows.ledger.ledger_records import RunVerdict
from cumulant.flows.training.window_uses import WindowUse
from cumulant.ports.registry import ModelVersion
from cumulant.training.records import Evaluation, Verdict

#: journal rows: what an evaluation found, by its run
EVALUATION = "evaluation"


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluations on the test rows, and the gate's verdict. `champion` is None for a first model, and covers only the
    test rows that the champion did not learn from.

    margins_from: the version, by number, that margins are held against if this one becomes the champion; None: itself.
    """

    evaluation: Evaluation
    naive: Evaluation
    champion: Evaluation | None
    champion_uri: str | None
    verdict: Verdict
    margins_from: str | None = None
    #: of the test rows by this model
    use: WindowUse | None = None
    #: of an evaluation of a version: whether its tested model was measured, since the served one knows the rows
    tested: bool = False
    notes: tuple[str, ...] = ()
    reused: bool = False

    @property
    def word(self) -> RunVerdict:
        return "passed" if self.verdict.passed else "refused"


class EvaluateResult(msgspec.Struct, frozen=True, kw_only=True):
    """A version's figures on the test rows, and the verdict against the champion (for the champion: against naive)."""

    run: str
    model: ModelVersion
    judgement: Judgement
    as_of: datetime | None = None
