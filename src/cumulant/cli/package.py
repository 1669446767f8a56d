"""`cumulant package`: a servable from a model that was made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.project import Project
    from cumulant.runtime.package import Packaged

app = application("package", "A servable from a model that was made elsewhere.")


@command(
    app,
    action="model.package",
    examples=[
        "cumulant package model.onnx --out servables/digits",
        "cumulant package booster.txt --out servables/late --sample rows.parquet",
        "cumulant package pipeline.joblib --out servables/churn --sample rows.csv --trust-pickle",
        "cumulant package models:/late@champion --out servables/late --json",
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
    out: Annotated[Path, typer.Option(metavar="DIR", help="The servable's folder; one that is there is replaced.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name for its callers; default: the source's.")
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Rows to compare the answers on: .csv, .parquet, .npy or .npz."),
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
) -> None:
    """Make a servable's folder from a model file; its answers are compared with the original's on the sample.

    Needs no project. A models:/ or runs:/ URI is looked up in the project's registry, where there is one.
    """
    from cumulant.runtime.package import package as flow

    with call.progress("package") as progress:
        progress(f"reading {source}")
        found = flow(
            source,
            out,
            name=name,
            sample=sample,
            tolerance=tolerance,
            trust_pickle=trust_pickle,
            project=_project(call),
        )
    call.answer(document(found), lambda console: _show(console, found))


def _project(call: Invocation) -> Project | None:
    """The project here, after asking whether the user may; None where there is none and none was named."""
    if call.given is None and not (call.directory / "cumulant.yaml").is_file():
        return None
    return call.project()


def document(found: Packaged) -> dict[str, Any]:
    """The result for programs."""
    import msgspec

    described = msgspec.to_builtins(found.servable)
    fields = ("inputs", "outputs", "columns", "classes", "batching", "parity", "lineage")
    return {
        "folder": str(found.folder),
        "name": found.servable.name,
        "kind": found.kind,
        "source": found.source,
        "size": found.size,
        **{field: described[field] for field in fields if field in described},
        "notes": list(found.notes),
    }


def _show(console: Console, found: Packaged) -> None:
    from cumulant.runtime.packaged_page import rows
    from cumulant.runtime.report_page.terminal import clean, heading, pairs

    heading(console, f"{found.servable.name}: a servable in {found.folder}")
    pairs(console, rows(found))
    for note in found.notes:
        console.print(f"note: {clean(note)}")
    console.print(f"next: cumulant serve {clean(found.folder)}", style="bold")
