"""Training, evaluation and reproduction of model versions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from cumulant.core.structs import struct_from
from cumulant.flows.registry.lineage import Reproduction, reproduce
from cumulant.flows.serving.predict import predict
from cumulant.flows.training.evaluate import evaluate
from cumulant.flows.training.evaluation_record import EvaluateResult
from cumulant.flows.training.train import train
from cumulant.ports.registry import ModelVersion
from cumulant.server.model_uri import join_uri
from cumulant.server.operation import ApiCall, post
from cumulant.training.records import Verdict


class TrainBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As the options of `cumulant train`."""

    quick: bool = False
    as_of: datetime | None = None
    trials: Annotated[int, Meta(ge=1)] | None = None
    time: str | None = None
    promote: bool = True


class TrainedRows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of the feature table, of which the run computed `rows_computed`; `computed_of`: that in words."""

    rows: int
    rows_computed: int
    computed_of: str | None


class TrainedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version. `verdict`: of the gate; `next`: commands that bring it to callers; `reused`: steps that
    were done before; `time`: the most that search and final fits might take.
    """

    run: str
    model: ModelVersion
    features: TrainedRows
    verdict: Verdict
    promoted: bool
    time: str | None
    notes: tuple[str, ...]
    next: tuple[str, ...]
    reused: tuple[str, ...]
    seconds: float


@post("/models/train", action="model.train", long=True)
def train_(call: ApiCall, body: TrainBody) -> TrainedVersion:
    """Train, evaluate and register a version."""
    trained = train(
        call.project,
        principal=call.principal,
        quick=body.quick,
        as_of=body.as_of,
        trials=body.trials,
        time=body.time,
        promote=body.promote,
        progress=call.progress,
    )
    return struct_from(TrainedVersion, trained, features=struct_from(TrainedRows, trained.features))


class EvaluateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    as_of: datetime | None = None


@post("/models/{model}/{version}/evaluate", action="model.evaluate", long=True)
def evaluate_(call: ApiCall, model: str, version: str, body: EvaluateBody) -> EvaluateResult:
    """Score a version on later rows, and apply the gate."""
    return evaluate(
        call.project, join_uri(model, version), principal=call.principal, as_of=body.as_of, progress=call.progress
    )


class ReproduceBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


@post("/models/{model}/{version}/reproduce", action="model.reproduce", long=True)
def reproduce_(call: ApiCall, model: str, version: str, body: ReproduceBody) -> Reproduction:
    """Train a version again from its recorded snapshots, and compare every file."""
    del body
    return reproduce(call.project, join_uri(model, version), principal=call.principal, progress=call.progress)


class PredictBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`rows`: with the raw fields of the request; `as_of`: windows and lookups see the data as of that moment."""

    rows: list[dict[str, Any]]
    as_of: datetime | None = None


class PredictedRows(msgspec.Struct, frozen=True, kw_only=True):
    """One answer a row, in order, by column; `warnings`: a sentence for each check that rows fail."""

    columns: list[str]
    rows: list[dict[str, Any]]
    warnings: list[str]


@post("/models/{model}/{version}/predict", action="model.predict", long=True)
def predict_(call: ApiCall, model: str, version: str, body: PredictBody) -> PredictedRows:
    """Score rows with a version, without a server of models: for few rows at a time."""
    from cumulant.data.files.user_frames import frame_of_rows

    failed: list[str] = []
    answers = predict(
        call.project,
        join_uri(model, version),
        frame_of_rows(body.rows),
        principal=call.principal,
        as_of=body.as_of,
        warnings=failed,
        progress=call.progress,
    )
    return PredictedRows(columns=answers.columns, rows=answers.to_dicts(), warnings=failed)


OPERATIONS = (train_, evaluate_, reproduce_, predict_)
