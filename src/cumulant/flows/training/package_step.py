"""The step `package`: a servable folder whose answers equal those of the trained model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core import expr
from cumulant.core.ids import digest
from cumulant.core.masking import fingerprint
from cumulant.core.refs import ObjectRef
from cumulant.core.servable import Parity, Servable, Unread
from cumulant.features.definition.personal_features import personal_features
from cumulant.flows.data.pii import mask_personal
from cumulant.flows.data.request_rules import request_rules
from cumulant.flows.ledger.step_function import StepFunction
from cumulant.flows.serving.reason_codes import build_reasons
from cumulant.flows.training.chosen_rows import blocks
from cumulant.flows.training.fitted import Fitted
from cumulant.flows.training.search_step import load_model, rows_of
from cumulant.flows.training.training_identity import work_from_json

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from cumulant.core.plan import FeaturePlan
    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.ports.journal import Transaction
    from cumulant.training.splits import TrainTestSplit


class PackageResult(msgspec.Struct, frozen=True, kw_only=True):
    """The stored servable and how it was found to answer as the trained model does."""

    servable: ObjectRef
    parity: Parity
    reused: bool = False


def package(
    context: Context, work: TrainingWork, fitted: Fitted, lineage: Mapping[str, str]
) -> tuple[PackageResult, pd.DataFrame | None]:
    """Build the servable and prove that it answers as the trained model. Also the `input_example` of the rows that were
    read for it; None where it was found done.

    Raises:
        ParityError: it does not.
    """
    objects = context.project.objects()
    examples: list[pd.DataFrame] = []
    # Commit and environment are recorded, not part of the identity: another commit alone makes no other model.
    rules = request_rules(context.project.policies, work.task.plan)
    explained = context.project.policies.serving.reasons
    inputs = {
        "model": fitted.served.key,
        "plan": digest(work.task.plan),
        "work": work.identity,
        "unread": _unread(work),
    }
    # Another salt alone makes another servable, where there is anything to hash.
    salt = _salt_fingerprint(context, work)
    inputs |= {"salt": salt} if salt else {}
    if rules:
        inputs["rules"] = msgspec.to_builtins(rules)
    if explained is not None:
        inputs["reasons"] = msgspec.to_builtins(explained)

    def build() -> dict[str, object]:
        built, rows = _build(context, work, fitted, lineage)
        examples.append(input_example(context, work, rows.test.features))
        return built

    def emit_built(transaction: Transaction, result: dict[str, object]) -> None:
        from cumulant.packaging.events import ServableBuilt

        built = _package(result)
        transaction.emit(
            ServableBuilt(
                model=context.project.name,
                sha256=built.servable.sha256,
                bytes=built.servable.bytes,
                parity_rows=built.parity.rows,
                max_difference=built.parity.max_difference,
                flips=built.parity.flips,
            )
        )

    def stands(result: dict[str, object]) -> bool:
        return objects.find(_package(result).servable.key) is not None

    arguments = {"work": work.to_json(), "fitted": msgspec.to_builtins(fitted), "lineage": dict(lineage)}
    function = StepFunction(f"{__name__}:{run_package.__name__}", arguments)
    outcome = context.step("package", inputs, build, function=function, verify=stands, write=emit_built)
    built = msgspec.structs.replace(_package(outcome.result), reused=outcome.reused)
    return built, examples[0] if examples else None


def run_package(context: Context, *, work: object, fitted: object, lineage: dict[str, str]) -> dict[str, object]:
    """The step in a process of its own: a `PackageResult`."""
    built, _ = _build(context, work_from_json(context.project, work), msgspec.convert(fitted, Fitted), lineage)
    return built


def _build(
    context: Context, work: TrainingWork, fitted: Fitted, lineage: Mapping[str, str]
) -> tuple[dict[str, object], TrainTestSplit]:
    """The `PackageResult` as JSON, and the rows that were read for it."""
    project = context.project
    model, rows = load_model(project, fitted.served), rows_of(context, work)
    with tempfile.TemporaryDirectory() as scratch:
        from cumulant.packaging.builder import build as build_servable
        from cumulant.packaging.input_warnings import closed_features

        folder = Path(scratch) / "servable"
        servable = build_servable(
            model,
            work.task.plan,
            name=project.name,
            sample=rows.test.features,
            out=folder,
            lineage=lineage,
            example=example(context, work),
            whole=_is_number(context, work),
            unread=_unread(work),
            rules=request_rules(project.policies, work.task.plan),
            closed=closed_features(rows.train.features, model.inputs),
            complete=_complete(work),
            nonnegative=_nonnegative(work),
            salt_fingerprint=_salt_fingerprint(context, work),
            reasons=build_reasons(project.policies.serving.reasons, model, rows.train.features),
            target=work.training.target,
        )
        ref = project.objects().put(f"servables/{_identity(servable, lineage)}", folder)
    assert servable.parity is not None
    return msgspec.to_builtins(PackageResult(servable=ref, parity=servable.parity)), rows


def _salt_fingerprint(context: Context, work: TrainingWork) -> str:
    """What distinguishes the salt, where there is anything to hash."""
    return fingerprint(context.project.salt()) if any(field.personal for field in work.task.plan.request) else ""


def input_example(context: Context, work: TrainingWork, features: pl.DataFrame) -> pd.DataFrame:
    """Five rows of features as the model takes them: a pandas frame, without personal values."""
    frame, personal = features.head(5), personal_features(work.task.plan)
    return (mask_personal(frame, personal, context.project.salt()) if personal else frame).to_pandas()


def _identity(servable: Servable, lineage: Mapping[str, str]) -> str:
    """Rules and reasons stand in the description, which is none of the files that are hashed."""
    content: dict[str, object] = {**servable.files, **lineage}
    content |= {"rules": msgspec.to_builtins(servable.rules)} if servable.rules else {}
    return digest(
        content if servable.reasons is None else {**content, "reasons": msgspec.to_builtins(servable.reasons)}
    )


def _package(result: Mapping[str, object]) -> PackageResult:
    return msgspec.convert(result, PackageResult)


def _unread(work: TrainingWork) -> dict[str, Unread]:
    """The source's columns that a request does not carry, and why."""
    from cumulant.data.snapshot import source_of
    from cumulant.features.definition.known_time import is_late

    task, source = work.task, source_of(work.snapshot)
    request, target = {field.name for field in task.plan.request}, expr.columns(task.target)
    columns: dict[str, Unread] = {}
    for name in (field.name for field in source.fields if field.name not in request):
        if is_late(source, task.predict_at, name):
            columns[name] = "late"
        else:
            columns[name] = "target" if name in target else "unused"
    return columns


def _complete(work: TrainingWork) -> tuple[str, ...]:
    """The request fields that no row of the source lacks, which the training rows are of."""
    from cumulant.packaging.input_warnings import complete_fields

    profile = work.snapshot.profile
    nulls = {column.name: column.nulls for column in profile.columns}
    return complete_fields((field.name for field in work.task.plan.request), nulls, profile.rows)


def _nonnegative(work: TrainingWork) -> tuple[str, ...]:
    """The request fields of numbers that no row of the source has below 0."""
    from cumulant.packaging.input_warnings import nonnegative_fields

    profile = work.snapshot.profile
    columns = {column.name: column for column in profile.columns}
    fields = [field.name for field in work.task.plan.request if field.dtype in ("int", "float")]
    numbers = [columns[name] for name in fields if name in columns]
    lowest = {column.name: column.min for column in numbers}
    return nonnegative_fields(lowest, {column.name: profile.rows - column.nulls for column in numbers})


def _is_number(context: Context, work: TrainingWork) -> bool:
    """Whether the target is of whole numbers, which a model's classes then are too."""
    from cumulant.data.snapshot import scan
    from cumulant.features.offline.polars_compiler import evaluate

    rows = scan(work.snapshot, context.project.tables(), as_of=work.as_of)
    columns = sorted(expr.columns(work.task.target))
    return all(_whole(evaluate(work.task.target, block)) for block in blocks(rows.select(columns)))


def _whole(values: pl.Series) -> bool:
    if values.dtype.is_float():
        numbers = values.fill_nan(None).drop_nulls()
        return bool((numbers == numbers.round()).all())
    return values.dtype.is_integer()


def example(context: Context, work: TrainingWork) -> dict[str, Any]:
    """The newest row as a request, without personal values."""
    import polars as pl

    from cumulant.data.snapshot import scan

    plan: FeaturePlan = work.task.plan
    fields = [field.name for field in plan.request]
    frame = scan(work.snapshot, context.project.tables(), as_of=work.as_of).select(fields).tail(1).collect()
    personal = frozenset(field.name for field in plan.request if field.personal)
    if personal:
        frame = mask_personal(frame, personal, context.project.salt())
    times = [name for name, kind in frame.schema.items() if isinstance(kind, (pl.Datetime, pl.Date))]
    frame = frame.with_columns(pl.col(name).dt.to_string("iso:strict") for name in times)
    return frame.row(0, named=True) if len(frame) else {}
