"""`cumulant package`: a servable from a model that was made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import UsageError
from cumulant.core.servable import GraphServable
from cumulant.core.units import duration, share
from cumulant.flows.packaging.package_summary import summary_rows
from cumulant.flows.reports.terminal import clean, heading, pairs, table

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.core.progress import Progress
    from cumulant.core.servable import FormResult, Servable
    from cumulant.flows.packaging.package_model import PackagedModel
    from cumulant.project.project import Project

app = application("package", "A servable from a model that was made elsewhere.")


class Quantize(StrEnum):
    """What a smaller form of the graph is chosen for."""

    size = "size"
    speed = "speed"
    off = "off"


@command(
    app,
    action="model.package",
    examples=[
        "cumulant package model.onnx --out servables/digits",
        "cumulant package booster.txt --out servables/late --sample rows.parquet",
        "cumulant package pipeline.joblib --out servables/churn --sample rows.csv --trust-pickle",
        "cumulant package models:/late@champion --out servables/late --json",
        "cumulant package model.onnx --out servables/digits --sample rows.npy --quantize size --accuracy-loss 1%",
        "cumulant package network.onnx --out servables/network --state h_in=h_out --state c_in=c_out",
        "cumulant package servables/late --image registry.example/late:1",
        "cumulant package servables/late --image registry.example/late:1 --options='--grpc 0.0.0.0:8081 --workers 2'",
    ],
)
def package(
    call: Invocation,
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="An ONNX, LightGBM, XGBoost or joblib file, a servable's folder, or a models:/ or runs:/ URI.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The servable's folder; one that is there is replaced.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name for its callers; default: the source's.")
    ] = None,
    sample: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows to compare the answers on: .csv, .parquet, .npy or .npz.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER", help="Largest difference that passes; default: 1e-6 for trees, 1e-4 for others.", min=0
        ),
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Read a pickle, which can run any code of its maker.")
    ] = False,
    quantize: Annotated[
        Quantize, typer.Option(help="Try smaller forms of the graph; take the smallest or the fastest. Needs --sample.")
    ] = Quantize.off,
    accuracy_loss: Annotated[
        str, typer.Option(metavar="SHARE", help="With --quantize: share of answers that may change.")
    ] = "1%",
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="With --quantize, of two classes: the probability from which you say yes; default: several are kept.",
        ),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT=OUTPUT",
            help="An input that the server keeps for each sequence, and the output that it gets next; may be repeated.",
        ),
    ] = None,
    state_idle: Annotated[
        str, typer.Option(metavar="TIME", help="With --state: forget a sequence that is idle for longer.")
    ] = "10m",
    image: Annotated[
        str | None, typer.Option(metavar="REF", help="Also build an image with the data plane and the servable.")
    ] = None,
    dockerfile: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the folder that the image is built from: a Dockerfile and its files."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="The image with Python to build on; default: python:3.11-slim.")
    ] = None,
    tool: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="buildah, podman or docker; default: the first that is installed."),
    ] = None,
    options: Annotated[
        str | None, typer.Option(metavar="WORDS", help="Options of the image's server, such as '--grpc 0.0.0.0:8081'.")
    ] = None,
) -> None:
    """Make a servable's folder or an image from a model; its answers are compared with the original's on the sample.

    Needs no project. A models:/ or runs:/ URI is looked up in the project's registry, where there is one.
    """
    from cumulant.flows.packaging.package_model import package as flow

    imaging = _Imaging(image, dockerfile, base, tool, options)
    with call.progress("package") as progress, _folder(out, imaging) as folder:
        progress(f"reading {source}")
        packaged = flow(
            source,
            folder,
            name=name,
            sample=sample,
            tolerance=tolerance,
            trust_pickle=trust_pickle,
            quantize=_AIMS[quantize],
            accuracy_loss=share(accuracy_loss),
            threshold=threshold,
            state=_pairs(state),
            idle=duration(state_idle).total_seconds(),
            project=_project(call),
        )
        built = imaging.build(folder, progress, packaged.servable)
    shown = document(packaged) | built | ({} if out else {"folder": None})
    call.answer(shown, lambda console: _show(console, packaged, in_folder=out is not None, built=built))


_AIMS: dict[Quantize, Literal["size", "speed"] | None] = {
    Quantize.size: "size",
    Quantize.speed: "speed",
    Quantize.off: None,
}


def _pairs(given: list[str] | None) -> dict[str, str]:
    outputs: dict[str, str] = {}
    for pair in given or []:
        name, _, output = pair.partition("=")
        if not name or not output or name in outputs:
            hint = "write --state INPUT=OUTPUT, such as h_in=h_out, once for each input"
            raise UsageError(f'"{pair}" names no pair of tensors', subject=pair, hint=hint)
        outputs[name] = output
    return outputs


class _Imaging:
    def __init__(
        self, image: str | None, dockerfile: Path | None, base: str | None, tool: str | None, options: str | None
    ) -> None:
        self.wanted = image is not None or dockerfile is not None
        self._image, self._context = image, dockerfile
        if not self.wanted:
            if (base, tool, options) != (None, None, None):
                hint = "add --image REF or --dockerfile DIR"
                raise UsageError("--base and --tool are of an image, and so is --options", hint=hint)
            return
        from cumulant.flows.packaging.image.build import find_tool
        from cumulant.flows.packaging.image.build_context import DEFAULT_BASE, check_folder, check_reference
        from cumulant.flows.packaging.image.dockerfile import parse_server_options

        self._serving = parse_server_options(options or "")
        self._base = check_reference(base or DEFAULT_BASE, "base image")
        if dockerfile is not None:
            check_folder(dockerfile)
        if image is not None:
            check_reference(image, "image")
            self._tool = find_tool(tool)

    def build(self, folder: Path, progress: Progress, servable: Servable | GraphServable) -> dict[str, Any]:
        """Write the folder and build the image, as required; returns their part of the command's document."""
        if not self.wanted:
            return {}
        from tempfile import TemporaryDirectory

        from cumulant.flows.packaging.image.build import build_image
        from cumulant.flows.packaging.image.build_context import write_context
        from cumulant.flows.packaging.image.run_command import build_run_command

        with TemporaryDirectory() as scratch:
            path = write_context(
                folder, self._context or Path(scratch) / "image", base=self._base, options=self._serving
            )
            result: dict[str, Any] = {} if self._context is None else {"dockerfile": str(path)}
            if self._image is not None:
                progress(f"building {self._image} with {self._tool}")
                number = build_image(path.parent, self._image, tool=self._tool)
                run = build_run_command(self._image, servable, self._serving, tool=self._tool)
                result |= {"image": self._image, "image_id": number, "tool": self._tool, "base": self._base}
                result |= {"needs": list(run.needs), "run": run.command}
            return result


@contextmanager
def _folder(out: Path | None, imaging: _Imaging) -> Iterator[Path]:
    if out is not None:
        yield out
        return
    if not imaging.wanted:
        raise UsageError("nothing says where the servable goes", hint="add --out DIR, --image REF or --dockerfile DIR")
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as scratch:
        yield Path(scratch) / "servable"


def _project(call: Invocation) -> Project | None:
    """The project here, after an access check; None where none exists and none was named."""
    if call.given is None and not (call.directory / "cumulant.yaml").is_file():
        return None
    return call.project()


def document(packaged: PackagedModel) -> dict[str, Any]:
    import msgspec

    described = msgspec.to_builtins(packaged.servable)
    fields = ("inputs", "outputs", "state", "columns", "classes", "batching", "parity", "candidates", "lineage")
    return {
        "folder": str(packaged.folder),
        "name": packaged.servable.name,
        "kind": packaged.kind,
        "source": packaged.source,
        "size": packaged.size,
        **{field: described[field] for field in fields if field in described},
        "notes": list(packaged.notes),
    }


def _show(console: Console, packaged: PackagedModel, *, in_folder: bool, built: dict[str, Any]) -> None:
    where = f"a servable in {packaged.folder}" if in_folder else "a servable"
    heading(console, f"{packaged.servable.name}: {where}")
    pairs(console, summary_rows(packaged))
    _show_forms(console, packaged.servable)
    for note in packaged.notes:
        console.print(f"note: {clean(note)}")
    pairs(console, [(key.replace("_", " "), value) for key, value in built.items() if key not in ("needs", "run")])
    for need in built.get("needs", ()):
        console.print(f"needs: {clean(need)}", soft_wrap=True)
    if built:
        following = built["run"] if "run" in built else f"docker build {built['dockerfile'][:-11]}"
        console.print(f"next: {clean(following)}", style="bold", soft_wrap=True)
    else:
        console.print(f"next: cumulant serve {clean(packaged.folder)}", style="bold")


def _show_forms(console: Console, servable: Servable | GraphServable) -> None:
    if isinstance(servable, GraphServable) and servable.candidates:
        heads = ("form", "size", "µs a row", "agreement", "reason")
        right = ("size", "µs a row", "agreement")
        console.print(table(heads, map(_form, servable.candidates), title="forms tried", right=right))


def _form(candidate: FormResult) -> tuple[str, ...]:
    measured = candidate.seconds > 0
    return (
        f"* {candidate.kind}" if candidate.chosen else f"  {candidate.kind}",
        f"{candidate.size:,}" if candidate.size else "",
        f"{candidate.seconds * 1e6:,.0f}" if measured else "",
        f"{candidate.agreement:.2%}" if measured else "",
        candidate.reason,
    )
