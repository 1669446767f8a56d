"""The model of a batch: a registered version with its project's history, or a servable's folder alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from cumulant.core.errors import UsageError
from cumulant.core.ids import digest
from cumulant.core.progress import Progress
from cumulant.core.servable import GraphServable, Servable
from cumulant.core.version import __version__
from cumulant.data.row_columns import FROM, ROW, UNTIL
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.feature_table import scans, used_sources
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.registry.version_servable import open_servable
from cumulant.flows.serving.batch.answer_columns import decision_columns, reasons_column
from cumulant.flows.serving.batch.piece_scoring import BatchWork, PreparedPiece, refuse_lacking
from cumulant.flows.serving.batch.request_checks import ColumnChecks
from cumulant.flows.serving.batch.tensor_scoring import GraphWork
from cumulant.packaging.batching import measure_batching
from cumulant.servable.engine import Engine
from cumulant.servable.folder import load_description
from cumulant.servable.scorer import Scorer

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import FeaturePlan
    from cumulant.core.servable import Reason
    from cumulant.data.files.streaming import Piece
    from cumulant.data.spec import SourceSpec
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.servable.description import Floats, Values
    from cumulant.serving.protocol.request_rules import Fault
    from cumulant.serving.reasons.reasoning import Reasoning

Compute = Callable[["pl.DataFrame"], "pl.DataFrame"]
#: packaging's text where it could not test whether rows may be scored together
_UNTRIED = ("not tried", "one row cannot be tried", "it could not be tried")


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


class BatchModel(NamedTuple):
    """A model ready for files."""

    work: BatchWork
    #: all that its answers depend on
    identity: dict[str, Any]
    reading: SourceSpec
    engine: Engine
    described: Servable | GraphServable
    #: rows of the history that windows and lookups see: in memory, and read for each part
    history: int = 0

    def together(self, sample: PreparedPiece) -> bool:
        """Whether rows may be scored together: no bit of an answer depends on the rows beside it."""
        if isinstance(self.described, Servable):
            return True
        if any(spec.shape[:1] != (-1,) for spec in self.described.inputs):
            return False
        batching = self.described.batching
        if not batching.exact and batching.reason.startswith(_UNTRIED):
            batching = measure_batching(self.engine, sample.feeds)
        return batching.exact


def load_folder(folder: Path, keep: Sequence[str], reasons: int | None = None) -> BatchModel:
    """The servable in `folder`; `reasons`: how many each answer gets.

    Raises:
        NotFoundError, IntegrityError: as `load_description`.
        UsageError: its features need a project's history.
        RequestError: it gives no reasons, or not so many.
    """
    described = load_description(folder)
    if isinstance(described, GraphServable):
        return _graph(folder, described, keep, reasons)
    if described.plan.needs_state:
        raise UsageError(
            f"the features of {described.name} look back at rows of its project",
            subject=str(folder),
            hint="name the registered version, in the project: cumulant predict NAME/VERSION --input FILE",
        )
    from cumulant.data.spec import SourceSpec

    return _rows(folder, SourceSpec(), keep, _History({}, {}), reasons)


@verb("model.predict")
@contextmanager
def open_registered(
    project: Project,
    uri: str,
    *,
    principal: Principal,
    keep: Sequence[str],
    as_of: datetime | None,
    progress: Progress,
    reasons: int | None = None,
) -> Iterator[BatchModel]:
    """A version of the project's registry, within a run of the flow `predict`; `reasons`: how many each answer gets.

    Raises:
        NotFoundError: no such model.
        RefusedError: `principal` may not.
        RequestError: it gives no reasons, or not so many.
    """
    with (
        open_run(project, "predict", writes=False, principal=principal, progress=progress) as context,
        open_servable(project, project.registry().resolve(uri)) as folder,
    ):
        described = load_description(folder)
        if isinstance(described, GraphServable):
            yield _graph(folder, described, keep, reasons)
        else:
            from cumulant.data.spec import SourceSpec

            policy = project.policies.sources.get(described.plan.entity)
            declared = SourceSpec() if policy is None else policy.spec
            refuse = project.policies.serving.invalid == "refuse"
            history = _history(context, described.plan, as_of)
            yield _rows(folder, declared, keep, history, reasons, refuse_invalid=refuse)


class _History(NamedTuple):
    """What windows and lookups see: the snapshots of all sources, and their rows where features need them."""

    used: dict[str, str]
    frames: dict[str, pl.DataFrame]
    as_of: datetime | None = None


def _history(context: Context, plan: FeaturePlan, as_of: datetime | None) -> _History:
    looked = {source.source for spec in plan.features if (source := spec.window or spec.lookup) is not None}
    if not looked:
        return _History({}, {})
    snapshots, _ = snapshots_of(context, plan.sources)
    used = used_sources(plan, snapshots)
    needed = {name: identity for name, identity in used.items() if name in looked or name != plan.entity}
    scanned = scans(context.project, snapshots, needed, as_of=as_of)
    history = {name: _columns(scan, plan, name) for name, scan in scanned.items()}
    text = ", ".join(f"{frame.height:,} rows of {name}" for name, frame in history.items())
    context.progress(f"windows and lookups see {text}, held in memory")
    return _History(used, history, as_of)


def _columns(scan: pl.LazyFrame, plan: FeaturePlan, name: str) -> pl.DataFrame:
    wanted = {field.name for field in plan.sources[name].fields}
    wanted |= {ROW, FROM, UNTIL}
    return scan.select(column for column in scan.collect_schema().names() if column in wanted).collect()


def _rows(
    folder: Path,
    declared: SourceSpec,
    keep: Sequence[str],
    history: _History,
    reasons: int | None = None,
    *,
    refuse_invalid: bool = False,
) -> BatchModel:
    from cumulant.data.files.prediction_rows import prediction_spec

    scorer = Scorer(folder)
    explained = _build_explained(scorer, reasons)
    plan = scorer.servable.plan
    identity = {
        **_identity(scorer.servable, keep),
        "snapshots": history.used,
        "as_of": history.as_of and history.as_of.isoformat(),
        "declared": msgspec.to_builtins(declared),
        **({} if explained is None else {"reasons": explained.each}),
        **({"invalid": "refuse"} if refuse_invalid else {}),
    }

    def compute(rows: pl.DataFrame) -> pl.DataFrame:
        from cumulant.features.offline.offline import compute

        return compute(plan, history.frames, rows=rows)

    return BatchModel(
        work=RowWork(scorer, declared, compute, keep, explained, refuse_invalid=refuse_invalid),
        identity=identity,
        reading=prediction_spec(declared, plan.request, ""),
        engine=scorer.engine,
        described=scorer.servable,
        history=sum(frame.height for frame in history.frames.values()),
    )


def _build_explained(scorer: Scorer, count: int | None) -> Explained | None:
    from cumulant.serving.reasons.reasoning import Reasoning, read_reasons

    reasoning = None if count is None or scorer.servable.reasons is None else Reasoning(scorer)
    wanted = None if count is None else read_reasons(reasoning, count)
    return None if wanted is None or reasoning is None else Explained(reasoning, wanted.count)


def _graph(folder: Path, described: GraphServable, keep: Sequence[str], reasons: int | None) -> BatchModel:
    from cumulant.data.spec import SourceSpec

    if reasons is not None:
        from cumulant.serving.reasons.reasoning import read_reasons

        read_reasons(None, reasons)
    if described.state:
        hint = f"serve it, and send its rows in order: cumulant serve {folder}"
        raise UsageError(
            f"{described.name} keeps state between requests, and the rows of a file are none",
            subject=described.name,
            hint=hint,
        )
    engine = Engine(folder / described.model)
    return BatchModel(
        work=GraphWork(engine, described, keep),
        identity=_identity(described, keep),
        reading=SourceSpec(),
        engine=engine,
        described=described,
    )


def _identity(described: Servable | GraphServable, keep: Sequence[str]) -> dict[str, Any]:
    # The description lists the SHA-256 of every other file of the servable.
    return {
        "name": described.name,
        "servable": digest(msgspec.to_builtins(described)),
        "keep": list(keep),
        "cumulant": __version__,
    }
