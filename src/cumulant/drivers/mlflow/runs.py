"""One run of an experiment; it is resumed if its key exists."""

from __future__ import annotations

import math
import re
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from cumulant.core.errors import CumulantError, causes, is_interrupt
from cumulant.drivers.mlflow.engine import engine
from cumulant.ports.registry import Dataset, Origin

KEY_TAG = "cumulant.key"
_BATCH = 100
#: characters that MLflow stores of a dataset's digest
_DIGEST = 36
_INHERITED = frozenset({"mlflow.source.name", "mlflow.source.type", "mlflow.user", "mlflow.source.git.commit"})
_COLUMN_TYPES = {
    "str": "string",
    "int": "long",
    "float": "double",
    "bool": "boolean",
    "time": "datetime",
    "date": "datetime",
    "bytes": "binary",
}
_UNFIT = re.compile(r"[^\w\-. /:]")


class MlflowRun:
    """An open run. Values that it has from an earlier opening are not written twice."""

    def __init__(self, client: Any, experiment: str, run: Any, key: str, *, again: bool) -> None:
        self._client = client
        self._experiment = experiment
        self._key = key
        self._run = run
        self._params: dict[str, str] = dict(run.data.params) if again else {}
        self._metrics: dict[str, float] = dict(run.data.metrics) if again else {}
        self._steps: dict[str, set[int]] = {}
        self._again = again

    @property
    def id(self) -> str:
        return str(self._run.info.run_id)

    @property
    def experiment_id(self) -> str:
        return str(self._run.info.experiment_id)

    def params(self, values: Mapping[str, object]) -> None:
        """Log parameters; those that the run has keep their first value."""
        fresh = {
            _to_mlflow_name(name): ("" if value is None else str(value))
            for name, value in values.items()
            if _to_mlflow_name(name) not in self._params
        }
        with engine(f"run {self.id}") as mlflow:
            entities = [mlflow.entities.Param(name, value) for name, value in fresh.items()]
            self._log("params", entities)
        self._params |= fresh

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Log metrics; a run that is opened again keeps the points that it has."""
        now = int(time.time() * 1000)
        with engine(f"run {self.id}") as mlflow:
            fresh = [
                mlflow.entities.Metric(_to_mlflow_name(name), float(value), now, step or 0)
                for name, value in values.items()
                if not self._has(_to_mlflow_name(name), float(value), step)
            ]
            self._log("metrics", fresh)

    def _has(self, name: str, value: float, step: int | None) -> bool:
        if not self._again or name not in self._metrics:
            return False
        if step is None:
            old = self._metrics[name]
            return old == value or (math.isnan(old) and math.isnan(value))
        if name not in self._steps:
            self._steps[name] = {point.step for point in self._client.get_metric_history(self.id, name)}
        return step in self._steps[name]

    def tags(self, values: Mapping[str, str]) -> None:
        with engine(f"run {self.id}") as mlflow:
            entities = [mlflow.entities.RunTag(_to_mlflow_name(name), value) for name, value in values.items()]
            self._log("tags", entities)

    def _log(self, kind: str, entities: Sequence[object]) -> None:
        for start in range(0, len(entities), _BATCH):
            self._client.log_batch(self.id, **{kind: entities[start : start + _BATCH]})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        with engine(f"run {self.id}"):
            add_artifact(self._client, self.id, path, folder)

    def dataset(self, data: Dataset) -> None:
        """Log a dataset as the run's input. The digest is cut to its first 36 digits."""
        with engine(f"run {self.id}") as mlflow:
            kind = mlflow.entities
            dataset = kind.Dataset(
                data.name,
                data.digest[:_DIGEST],
                "local",
                _json({"uri": data.source}),
                schema=_json({"mlflow_colspec": [_column(*field) for field in data.fields.items()]}),
                profile=_json({"num_rows": data.rows}),
            )
            dataset_input = kind.DatasetInput(dataset, tags=[kind.InputTag("mlflow.data.context", data.use)])
            self._client.log_inputs(self.id, datasets=[dataset_input])

    def describe(self, text: str) -> None:
        self.tags({"mlflow.note.content": text})

    @contextmanager
    def child(self, name: str, *, begun: datetime | None = None, seconds: float | None = None) -> Iterator[MlflowRun]:
        """A run below this one (a trial), named uniquely within it. It has this one's source and user."""
        own = {name: value for name, value in self._run.data.tags.items() if name in _INHERITED}
        tags = {**own, "mlflow.parentRunId": self.id}
        key = f"{self._key}/{name}"
        with open_run(self._client, self._experiment, name, key=key, tags=tags, begun=begun, seconds=seconds) as run:
            yield run


@contextmanager
def open_run(
    client: Any,
    experiment_id: str,
    name: str,
    *,
    key: str,
    tags: Mapping[str, str] | None = None,
    begun: datetime | None = None,
    seconds: float | None = None,
) -> Iterator[MlflowRun]:
    """Open the run with that key, or a new one; on exit its status is recorded.

    A new run begins at `begun`, else now; it lasts `seconds`, else until it is closed.
    """
    with engine(f"run {name}"):
        quoted = key.replace("'", "")
        runs = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{quoted}'", max_results=1)
        present = runs[0] if runs else None
        run = present or client.create_run(
            experiment_id, run_name=name, start_time=_millis(begun), tags={KEY_TAG: key, **(tags or {})}
        )
        if present:
            client.update_run(run.info.run_id, status="RUNNING")
    opened = MlflowRun(client, experiment_id, run, key, again=present is not None)
    end = None if seconds is None else run.info.start_time + int(1000 * seconds)
    try:
        yield opened
    except BaseException as error:
        # An interrupted statement locks the database as long as the error's frames refer to it: 20 s for whoever waits.
        for below in causes(error):
            traceback.clear_frames(below.__traceback__)
        # An interrupted registry may refuse this too: the error to raise is the one that ended the run.
        with suppress(CumulantError), engine(f"run {name}"):
            client.set_terminated(opened.id, "KILLED" if is_interrupt(error) else "FAILED", end)
        raise
    with engine(f"run {name}"):
        client.set_terminated(opened.id, "FINISHED", end)


def origin_tags(origin: Origin) -> dict[str, str]:
    """The tags of a run's source and user, which MLflow's own pages show."""
    tags = {
        "mlflow.source.name": origin.command,
        "mlflow.source.type": "LOCAL",
        "mlflow.user": origin.user,
        "mlflow.source.git.commit": origin.commit,
    }
    return {name: value for name, value in tags.items() if value}


def add_artifact(client: Any, run_id: str, path: Path, folder: str | None) -> None:
    if path.is_dir():
        client.log_artifacts(run_id, str(path), folder or path.name)
    else:
        client.log_artifact(run_id, str(path), folder)


def _to_mlflow_name(name: str) -> str:
    """A name that MLflow accepts: letters, digits and `_-. /:`."""
    return _UNFIT.sub("_", name).strip("/ ")


def _millis(when: datetime | None) -> int | None:
    return None if when is None else int(when.timestamp() * 1000)


def _json(document: object) -> str:
    return msgspec.json.encode(document).decode()


def _column(name: str, dtype: str) -> dict[str, object]:
    """A column as MLflow's own datasets describe theirs."""
    return {"name": name, "type": _COLUMN_TYPES.get(dtype, dtype), "required": False}
