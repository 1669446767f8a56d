"""`package`: a servable's folder from a foreign model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import UsageError, join_names
from cumulant.core.ids import file_digest, folder_size
from cumulant.core.servable import FormResult, GraphServable, Servable
from cumulant.core.version import __version__
from cumulant.packaging.convert.copies import copy_servable
from cumulant.packaging.convert.foreign_build import GraphOptions, Rows, build_graph
from cumulant.packaging.convert.model_files import read_model
from cumulant.packaging.samples import read_sample
from cumulant.packaging.sources import identify
from cumulant.project.tracking import registry_here
from cumulant.servable.engine import Array
from cumulant.servable.folder import with_salt

if TYPE_CHECKING:
    from cumulant.packaging.convert.foreign_build import Shrink
    from cumulant.packaging.convert.foreign_model import ForeignModel
    from cumulant.packaging.quantize.choice import Aim
    from cumulant.project.project import Project

_URI = re.compile(r"(models|runs):/")
#: columns that a note names
_NAMED = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class PackagedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A servable that was written, with notes for the user."""

    folder: Path
    #: what the model was made with, such as LightGBM
    kind: str
    source: str
    #: bytes of the folder's files
    size: int
    servable: Servable | GraphServable
    notes: tuple[str, ...] = ()


def package(
    source: str,
    out: Path,
    *,
    name: str | None = None,
    sample: Path | None = None,
    tolerance: float | None = None,
    trust_pickle: bool = False,
    quantize: Aim | None = None,
    accuracy_loss: float = 0.01,
    threshold: float | None = None,
    state: Mapping[str, str] | None = None,
    idle: float = 600.0,
    project: Project | None = None,
) -> PackagedModel:
    """Write the servable of the model at `source`, a path or a models:/ or runs:/ URI, to the folder `out`.

    `name` defaults to the source's own. With `sample`, a file of rows, the packaged model is compared with the
    original. `quantize` puts the smallest or the fastest form of the graph in its place that keeps `accuracy_loss` on
    the sample, which it needs; of two classes for the decisions at `threshold`. `state` names the inputs of an ONNX
    graph that a server keeps between the requests of a sequence, with the output that each gets next, and `idle` the
    seconds for which it does. URIs are looked up in the registry of `project`; without one, as MLflow is set up on this
    machine. Nothing is left at `out` when it fails; a servable that stands there is replaced.

    Raises:
        UsageError: a source or sample that cannot be used, `quantize` without a sample or with `state`, `state` of a
            servable, or a pickle without `trust_pickle`.
        ParityError: the packaged model does not answer as the original.
        NotFoundError, EngineUnavailableError: the registry has no such model or run, or does not answer.
        StorageError: the folder cannot be written.
    """
    check_place(out)
    if state and quantize is not None:
        raise UsageError(
            "--quantize measures single requests, and --state makes sequences of them",
            hint='make the graph smaller first, such as with onnxruntime.quantization.quantize_dynamic("net.onnx", '
            '"small.onnx"), and package small.onnx with --state; or leave out one of the two',
        )
    shrink = None if quantize is None else build_shrink(quantize, accuracy_loss, sample, threshold)
    options = GraphOptions(tolerance=tolerance, shrink=shrink, state=state, idle=idle)
    with TemporaryDirectory() as scratch:
        path = Path(source)
        if _URI.match(source):
            registry = registry_here() if project is None else project.registry()
            path = registry.download(source, Path(scratch))
        packaged = _package(path, source, out, name, sample, options=options, trust_pickle=trust_pickle)
        return packaged if project is None or path == Path(source) else _with_environment_salt(packaged, project)


def _with_environment_salt(packaged: PackagedModel, project: Project) -> PackagedModel:
    """A model of the registry serves in the project's environment, whose salt hashes the personal values."""
    servable = packaged.servable
    if not isinstance(servable, Servable) or not any(field.personal for field in servable.plan.request):
        return packaged
    here = project.salt_source.fingerprint()
    if here is None:
        note = "the salt of this environment is not available here: a server takes that of the training"
        return msgspec.structs.replace(packaged, notes=(*packaged.notes, note))
    return msgspec.structs.replace(packaged, servable=with_salt(packaged.folder, here))


def build_shrink(aim: Aim, accuracy_loss: float, sample: Path | None, threshold: float | None = None) -> Shrink:
    """Function that puts a smaller or faster form of a graph in its place.

    Raises:
        UsageError: there is no sample to compare the forms on.
    """
    if sample is None:
        hint = "add --sample FILE with rows as the model meets them in use"
        raise UsageError(f"--quantize {aim} needs a sample: each form is compared on its rows", hint=hint)

    def shrink(model: Path, rows: Mapping[str, Array]) -> tuple[FormResult, ...]:
        from cumulant.packaging.quantize.quantize import quantize

        return quantize(model, rows, aim=aim, accuracy_loss=accuracy_loss, out=model, threshold=threshold)

    return shrink


def check_place(out: Path) -> None:
    """Raises UsageError where something stands that is no servable: it would be lost."""
    servable = (out / "servable.json").is_file()
    if out.is_file() or (out.is_dir() and not servable and any(out.iterdir())):
        raise UsageError(f"{out} holds something that is no servable", subject=str(out), hint="choose another --out")


def _package(
    path: Path,
    source: str,
    out: Path,
    name: str | None,
    sample: Path | None,
    *,
    options: GraphOptions,
    trust_pickle: bool,
) -> PackagedModel:
    kind = identify(path)
    if kind == "mlflow":
        from cumulant.packaging.convert.flavours import find_mlflow_model

        path = find_mlflow_model(path, trust_pickle=trust_pickle)
        kind = identify(path)
    if kind == "servable":
        if options.shrink is not None or options.state:
            hint = "package the model that it was made from"
            raise UsageError(f"{source} is a servable already, which is copied as it is", subject=source, hint=hint)
        return copy_existing(path, source, out, name)
    foreign = read_model(path, trust_pickle=trust_pickle, example=sample)
    lineage = {"source": path.name, "source.sha256": file_digest(path)}
    rows: Rows | None = None if sample is None else lambda inputs, columns: read_sample(sample, inputs, columns)
    return write_servable(foreign, source, out, name or derive_name(source), rows, lineage=lineage, options=options)


def copy_existing(path: Path, source: str, out: Path, name: str | None) -> PackagedModel:
    if out.resolve() == path.resolve():
        raise UsageError(f"{out} is the servable itself", subject=str(out), hint="choose another --out")
    servable = copy_servable(path, out, name=None if name is None else check_name(name))
    notes = ("a servable already: copied as it is; no comparison was made",)
    return PackagedModel(
        folder=out, kind="servable", source=source, size=folder_size(out), servable=servable, notes=notes
    )


def write_servable(
    foreign: ForeignModel,
    source: str,
    out: Path,
    name: str,
    rows: Rows | None,
    *,
    lineage: Mapping[str, str],
    options: GraphOptions,
) -> PackagedModel:
    """The servable of a model that was read, built at `out`."""
    origin = {**lineage, "kind": foreign.kind, "converter": foreign.converter, "package.cumulant": __version__}
    servable = build_graph(foreign, name=check_name(name), out=out, sample=rows, lineage=origin, options=options)
    notes = foreign.notes
    if rows is None:
        notes += ("without a sample the batching was tried on made-up rows, and the answers were not compared",)
    if servable.required:
        notes += (
            f"rows must carry {join_names(servable.required, _NAMED)}: the model has no answer where they are missing",
        )
    return PackagedModel(
        folder=out, kind=foreign.kind, source=source, size=folder_size(out), servable=servable, notes=notes
    )


def check_name(name: str) -> str:
    """Raises UsageError for a name that could be no model's."""
    if not _NAME.fullmatch(name):
        hint = "use letters, digits, '.', '-' and '_', beginning with a letter or digit"
        raise UsageError(f'"{name}" cannot be the name of a model', subject=name, hint=hint)
    return name


def derive_name(source: str) -> str:
    """A model's name from that of its file or URI."""
    if source.startswith("models:/"):
        base = re.split(r"[@/]", source.removeprefix("models:/").lstrip("/"))[0]
    else:
        base = Path(source).name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", base).strip("-._") or "model"
