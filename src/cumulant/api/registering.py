"""`cumulant.register`: a model of this notebook as a servable, in the project's registry or in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cumulant.api import views
from cumulant.api.display import ResultView
from cumulant.api.errors import short_errors

if TYPE_CHECKING:
    from cumulant.api.project import Project
    from cumulant.flows.packaging.register import RegisterResult


@short_errors
def register(
    model: Any,
    sample: object = None,
    *,
    name: str,
    out: Path | str | None = None,
    project: Project | Path | str | None = None,
    tolerance: float | None = None,
    trust_pickle: bool = False,
) -> ResultView[RegisterResult]:
    """Package a fitted model and register it, after comparing the packaged answers with its own on `sample`.

    `model`: a scikit-learn estimator or pipeline, a LightGBM or XGBoost model, an ONNX ModelProto, a model's file, a
    servable's folder, or a models:/ or runs:/ URI. `sample`: a table, an array, a dict of arrays by input name, or a
    file. `project`: a project or its folder; default: the one here. With `out` only that folder is written, and no
    project is needed.

    Raises:
        UsageError: a model or sample that cannot be used, or no project to register it in.
        ParityError: the packaged model does not answer as the original; nothing is left behind.
    """
    from cumulant.flows.packaging import register as flow

    if out is not None:
        packaged = flow.package_object(
            model, Path(out), name=name, sample=sample, tolerance=tolerance, trust_pickle=trust_pickle
        )
        return views.registered(flow.RegisterResult(packaged=packaged))
    from cumulant.project.file.loading import load

    loaded = (
        load(project or ".", via="python") if project is None or isinstance(project, str | Path) else project.loaded
    )
    result = flow.register(
        loaded,
        model,
        name=name,
        principal=loaded.principal(),
        sample=sample,
        tolerance=tolerance,
        trust_pickle=trust_pickle,
    )
    return views.registered(result)
