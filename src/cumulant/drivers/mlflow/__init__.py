"""MLflow as registry: experiment runs, model versions with aliases, models that load with plain MLflow."""
