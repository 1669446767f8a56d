"""The Python API for notebooks and scripts: the commands as methods of a project.

    import cumulant

    project = cumulant.new(frame, target="churned", name="churn")
    trained = project.train(quick=True)
    project.predict(frame.head(5))

Every result shows itself in a notebook (`_repr_html_`) and in a console (`repr`), and gives the flow's own typed
result as `.value`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cumulant.api.errors import RowWarning, short_errors

if TYPE_CHECKING:
    from cumulant.api.project import Project
    from cumulant.api.registering import register
    from cumulant.api.remote.project import RemoteProject
    from cumulant.core.progress import Progress

__all__ = ["Project", "RowWarning", "connect", "new", "new_from_template", "open", "register"]


@short_errors
def open(  # noqa: A001 - `cumulant.open` is the name that reads well
    directory: Path | str = ".",
    *,
    env: str = "local",
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Project:
    """The project in `directory`, in one environment.

    `overrides` are settings by dotted path, such as `{"training.trials": 5}`. `progress` is called with a text and
    the share that is done, 0 to 1 or None, while methods run; default: a line below the notebook's cell.

    Raises:
        ProjectFileError: the project file has faults; each is listed with its line.
        NotFoundError: no such environment.
    """
    from cumulant.api.project import Project
    from cumulant.project.file.loading import load

    return Project(load(directory, environment=env, overrides=overrides or (), via="python"), progress=progress)


@short_errors
def connect(
    url: str, *, project: str = "", token: str | None = None, progress: Progress | None = None
) -> RemoteProject:
    """A project on the server at `url`, which `cumulant api` starts, with the methods of a local one.

    `project` may be left out where the server has one only. `token`: an API token; default: the variable
    `CUMULANT_API_TOKEN`, else the one that `cumulant login` has saved. `progress` as `open` takes it.

    Raises:
        UsageError: no token may be sent to the address, which is not HTTPS and not of this machine; or the server has
            several projects and none is named.
        EngineUnavailableError: the server does not answer, or is not one of Cumulant.
        CredentialsError: it does not know the token.
    """
    from cumulant.api.remote.project import RemoteProject
    from cumulant.project.identity import api_token
    from cumulant.server.client.http_api import HttpApi

    http = HttpApi(url, token=api_token(url) if token is None else token, project=project)
    return RemoteProject(http, follow=None if progress is None else lambda _: nullcontext(progress))


@short_errors
def new(
    data: object,
    *,
    target: str,
    name: str,
    time: str | None = None,
    key: str | Sequence[str] = (),
    directory: Path | str = ".",
    env: str = "local",
) -> Project:
    """A new project in `directory/name` that predicts `target`, and trains as it stands.

    `data` is a Polars, pandas or PyArrow table, which is stored in the project, or the path of a file, folder or glob,
    which is referred to. What was assumed is in `.assumptions`.

    Raises:
        DataError: the data cannot be read, or have no such column.
        UsageError: the name cannot be one, or the place is taken.
    """
    from cumulant.api.project import Project
    from cumulant.project.file.loading import load
    from cumulant.project.new.create import create_from, create_from_frame

    make = create_from if isinstance(data, str | Path) else create_from_frame
    created = make(data, target, name=name, directory=directory, time=time, key=key)  # type: ignore[arg-type]
    return Project(load(created.path, environment=env, via="python"), assumptions=created.assumptions)


@short_errors
def new_from_template(template: str, *, name: str, directory: Path | str = ".") -> Project:
    """A new project in `directory/name` from a shipped template, with its data: `flights`, `fraud` or `blank`.

    Raises:
        NotFoundError: no such template.
        UsageError: the name cannot be one, or the place is taken.
    """
    from cumulant.api.project import Project
    from cumulant.project.file.loading import load
    from cumulant.project.new.templates import create_from_template

    created = create_from_template(name, template, directory=directory)
    return Project(load(created.path, via="python"), assumptions=created.assumptions)


def __getattr__(name: str) -> Any:
    if name == "Project":
        from cumulant.api.project import Project

        return Project
    if name == "register":
        from cumulant.api.registering import register

        return register
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
