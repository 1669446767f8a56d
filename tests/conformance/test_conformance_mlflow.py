"""MLflow keeps the rules of the port `registry`."""

import pandas as pd
import pytest

from cumulant.drivers.mlflow.client import MlflowRegistry
from cumulant.testing.conformance.registry import RegistryConformance
from cumulant.testing.servables import build_servable

# Plain MLflow speaks through warnings; the driver's own silence is tested beside it.
pytestmark = pytest.mark.filterwarnings("ignore")


class TestMlflowRegistry(RegistryConformance):
    @pytest.fixture
    def registry(self, tmp_path):
        return MlflowRegistry(f"mlflow+sqlite://{tmp_path / 'mlflow.db'}")

    @pytest.fixture
    def servable(self, tmp_path):
        return build_servable(tmp_path)

    @pytest.fixture
    def example(self):
        return pd.DataFrame({"distance": [100.0, 2500.0]})
