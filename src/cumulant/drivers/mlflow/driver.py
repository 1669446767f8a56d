"""The records of the MLflow driver. Importing this loads no engine."""

from __future__ import annotations

from cumulant.ports.driver import Driver

_CLIENT = "cumulant.drivers.mlflow.client:MlflowRegistry"

#: `mlflow+sqlite:///PATH/mlflow.db`: a file, with the artifacts in a folder beside it
embedded = Driver(
    clients={"registry": _CLIENT},
    capabilities={"registry": frozenset({"embedded", "datasets"})},
    extra="train",
    path="file",
    default_paths={"registry": "mlflow.db"},
    options={"registry": frozenset()},
    stored={"registry": {"{name}": "sqlite", "mlartifacts": "folder"}},
    aliases={"sqlite:///": "mlflow+sqlite://"},  # MLflow's own way: relative, and absolute with a fourth slash
)
#: `http://`, `https://`, `databricks`, `databricks://PROFILE`: a tracking server, as MLflow itself takes it
server = Driver(
    clients={"registry": _CLIENT}, capabilities={"registry": frozenset({"datasets", "hosts"})}, extra="train"
)
