"""MLflow keeps the rules of the port `registry`."""

import pandas as pd
import pytest

from cumulant.core.expr import Column
from cumulant.core.plan import FeaturePlan, FeatureSpec, Field, Source
from cumulant.core.servable import Input
from cumulant.drivers.mlflow.client import MlflowRegistry
from cumulant.packaging.builder import build
from cumulant.testing.conformance.registry import RegistryConformance
from cumulant.training.model import constant

# Plain MLflow speaks through warnings; the driver's own silence is tested beside it.
pytestmark = pytest.mark.filterwarnings("ignore")

FIELDS = (Field("distance", "float"),)
PLAN = FeaturePlan(
    entity="flights",
    predict_at=None,
    sources={"flights": Source("flights", (), None, FIELDS)},
    features=(FeatureSpec("distance", "float", expr=Column("distance")),),
    request=FIELDS,
)


class TestMlflowRegistry(RegistryConformance):
    @pytest.fixture
    def registry(self, tmp_path):
        return MlflowRegistry(f"mlflow+sqlite://{tmp_path / 'mlflow.db'}")

    @pytest.fixture
    def servable(self, tmp_path):
        model = constant([0.25], task="binary", classes=("false", "true"), inputs=(Input("distance", "number"),))
        out = tmp_path / "servable"
        build(model, PLAN, name="flight-late", sample={"distance": [1.0, None]}, out=out, lineage={}, example={})
        return out

    @pytest.fixture
    def example(self):
        return pd.DataFrame({"distance": [100.0, 2500.0]})
