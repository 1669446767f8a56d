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
#: `mlflow+postgresql://USER:PASSWORD@HOST:PORT/DATABASE?artifacts=s3://BUCKET/FOLDER`: without a server of MLflow
postgres = Driver(
    clients={"registry": _CLIENT},
    capabilities={"registry": frozenset({"datasets", "hosts"})},
    extra="postgres",
    aliases={"postgresql://": "mlflow+postgresql://"},  # MLflow's own way
    own_backup="pg_dump of its schema, and a copy of the folder of its artifacts",
)
#: `http://`, `https://`, `databricks`, `databricks://PROFILE`: a tracking server, as MLflow itself takes it
server = Driver(
    clients={"registry": _CLIENT}, capabilities={"registry": frozenset({"datasets", "hosts"})}, extra="train"
)
