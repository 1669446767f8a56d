"""`plan` warns where environments of a project share MLflow's versions and aliases in one database."""

from __future__ import annotations

from pathlib import Path

import pytest

from cumulant.project.file.loading import load
from cumulant.project.shared_registry import shared_registry_warnings

PROD = "mlflow+postgresql://ada:${secret:A}@db.internal/ml?artifacts=s3://acme/prod"


def warnings(folder: Path, other: str) -> list[str]:
    lines = ["version: 1", "environments:", "  ci: {}", f"  prod: {{tracking_uri: '{PROD}'}}"]
    lines.append(f"  dev: {{tracking_uri: '{other}'}}")
    (folder / "cumulant.yaml").write_text("\n".join(lines) + "\n")
    project = load(folder, environment="prod")
    return shared_registry_warnings(project.file, project.environment)


@pytest.mark.parametrize(
    "other",
    [
        PROD,
        "postgresql://bob@DB.internal/ml?artifacts=s3://acme/dev",
        "mlflow+postgresql://bob@db.internal/ml?artifacts=s3://acme/dev&schema=mlflow",
    ],
)
def test_another_environment_with_the_same_tables_is_named(tmp_path: Path, other: str) -> None:
    [text] = warnings(tmp_path, other)
    assert text.startswith("environment dev has the same registry as prod")
    assert "&schema=NAME" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    "other",
    [
        f"{PROD}&schema=dev",
        "mlflow+postgresql://db.internal/other?artifacts=s3://acme/prod",
        "https://mlflow.example.com",
        "databricks",
    ],
)
def test_another_schema_database_or_server_is_another_registry(tmp_path: Path, other: str) -> None:
    assert warnings(tmp_path, other) == []
