"""`register`: a foreign model, packaged and put into the project's registry."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from cumulant.core.events import Actor, Fact
from cumulant.core.ids import digest
from cumulant.core.servable import GraphServable, Servable
from cumulant.flows.ledger.actions import verb
from cumulant.flows.packaging.package_model import PackagedModel, check_name, check_place, package, write_servable
from cumulant.packaging.convert.foreign_build import GraphOptions, Rows
from cumulant.packaging.convert.model_files import read_model
from cumulant.packaging.convert.model_objects import from_object
from cumulant.packaging.samples import ModelSample, arrays_of_frame, check_sample, read_sample
from cumulant.ports.registry import ModelVersion

if TYPE_CHECKING:
    import pandas as pd

    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


class ModelRegistered(Fact, frozen=True, kw_only=True):
    """A model that was made elsewhere became a version of the registry."""

    kind: ClassVar[str] = "model.registered"
    model: str
    version: str
    source: str


class RegisterResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was packaged, and the version that it became; `version` is None where only a folder was written."""

    packaged: PackagedModel
    version: ModelVersion | None = None

    @property
    def servable(self) -> Servable | GraphServable:
        return self.packaged.servable

    @property
    def uri(self) -> str:
        """Where it is: models:/NAME/VERSION, or the folder."""
        return str(self.packaged.folder) if self.version is None else self.version.uri


def package_object(
    model: Any,
    out: Path,
    *,
    name: str,
    sample: object = None,
    tolerance: float | None = None,
    trust_pickle: bool = False,
    project: Project | None = None,
) -> PackagedModel:
    """Write the servable of `model`, an object in memory or a path or URI, to the folder `out`.

    `sample` is a table (Polars, pandas, PyArrow), an array, a dict of arrays by input name, or a file's path.

    Raises:
        UsageError, ParityError, StorageError: as `package`.
    """
    if isinstance(model, str | Path) and (sample is None or isinstance(sample, str | Path)):
        return package(
            str(model),
            out,
            name=name,
            sample=None if sample is None else Path(sample),
            tolerance=tolerance,
            trust_pickle=trust_pickle,
            project=project,
        )
    check_place(out)
    if isinstance(model, str | Path):
        foreign, source = read_model(Path(model), trust_pickle=trust_pickle), str(model)
    else:
        foreign = from_object(model, example=_frame(sample))
        source = f"{type(model).__module__}.{type(model).__qualname__}"
    options = GraphOptions(tolerance=tolerance)
    return write_servable(foreign, source, out, name, _rows(sample), lineage={"source": source}, options=options)


@verb("model.register", of="name")
def register(
    project: Project,
    model: Any,
    *,
    name: str,
    principal: Principal,
    sample: object = None,
    tolerance: float | None = None,
    trust_pickle: bool = False,
) -> RegisterResult:
    """Package `model` and register it as a version of `name`; the same servable again gives the version that exists.

    Raises:
        RefusedError: `principal` may not.
        UsageError, ParityError, StorageError: as `package`.
    """
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / check_name(name)
        packaged = package_object(
            model, folder, name=name, sample=sample, tolerance=tolerance, trust_pickle=trust_pickle, project=project
        )
        version = _register(project, packaged, name, principal)
    packaged = msgspec.structs.replace(packaged, folder=Path(version.uri))
    return RegisterResult(packaged=packaged, version=version)


def _register(project: Project, packaged: PackagedModel, name: str, principal: Principal) -> ModelVersion:
    registry, key = project.registry(), digest([name, packaged.servable.files])
    known = {entry.version for entry in registry.versions(name)} if name in set(registry.models()) else set()
    with registry.run(name, f"register {packaged.kind}", key=key) as run:
        run.params({"kind": packaged.kind, **packaged.servable.lineage})
        parity = packaged.servable.parity
        if parity is not None:
            run.metrics({"parity_max_difference": parity.max_difference, "parity_rows": float(parity.rows)})
        version = registry.register(
            run, name, packaged.folder, _example(packaged), tags={"cumulant.kind": packaged.kind}, key=key
        )
    if version.version not in known:
        with project.journal().transaction(actor=Actor(principal.id, None)) as transaction:
            transaction.emit(ModelRegistered(model=name, version=version.version, source=packaged.source))
    return version


def _example(packaged: PackagedModel) -> pd.DataFrame:
    """One row as a frame: of the matrix's columns, else the names of the inputs."""
    import pandas as pd

    servable = packaged.servable
    if not isinstance(servable, GraphServable):
        return pd.DataFrame([servable.example])
    values = next(iter(servable.example.values()), [])
    if servable.columns and len(values) == len(servable.columns):
        return pd.DataFrame([values], columns=list(servable.columns))
    return pd.DataFrame({"input": [spec.name for spec in servable.inputs]})


def _frame(sample: Any) -> Any:
    import polars as pl

    if isinstance(sample, str | Path):
        from cumulant.packaging.samples import read_table_if_any

        return read_table_if_any(Path(sample))
    if isinstance(sample, pl.DataFrame):
        return sample
    kind = type(sample).__module__.partition(".")[0]
    if kind == "pandas" and hasattr(sample, "columns"):
        return pl.from_pandas(sample)
    return pl.from_arrow(sample) if kind == "pyarrow" else None


def _rows(sample: object) -> Rows | None:
    import numpy as np

    if sample is None:
        return None
    if isinstance(sample, str | Path):
        return lambda inputs, columns: read_sample(Path(sample), inputs, columns)
    frame = _frame(sample)
    if frame is not None:
        return lambda inputs, columns: check_sample(
            ModelSample(arrays_of_frame(frame, inputs, columns), given=True), inputs, "the sample"
        )
    if isinstance(sample, dict):
        arrays = {str(key): np.asarray(value) for key, value in sample.items()}
        return lambda inputs, _: check_sample(ModelSample(arrays, given=True), inputs, "the sample")
    return lambda inputs, _: check_sample(
        ModelSample({inputs[0].name: np.asarray(sample)}, given=True), inputs, "the sample"
    )
