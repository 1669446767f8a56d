"""Which features show a personal value: a copy of a copy does too."""

from cumulant.core.expr import Call, Column, Feature
from cumulant.core.plan import FeaturePlan, FeatureSpec, Field, Source
from cumulant.features.definition.personal_features import personal_features
from cumulant.flows.reports.feature_texts import personal

FIELDS = (Field("email", "str", personal=True), Field("amount", "float"))
PLAN = FeaturePlan(
    entity="orders",
    predict_at=None,
    sources={"orders": Source("orders", (), None, FIELDS)},
    features=(
        FeatureSpec("email_copy", "str", expr=Column("email")),
        FeatureSpec("copy_of_copy", "str", expr=Feature("email_copy")),
        FeatureSpec("lower_copy", "str", expr=Call("lower", (Feature("copy_of_copy"),))),
        FeatureSpec("width", "int", expr=Call("length", (Feature("email_copy"),))),
        FeatureSpec("amount", "float", expr=Column("amount")),
    ),
    request=FIELDS,
)


def test_what_is_made_of_a_shown_value_shows_it():
    assert personal(PLAN) == {"email_copy", "copy_of_copy", "lower_copy"}


def test_what_is_worked_out_from_a_personal_value_is_personal():
    assert personal_features(PLAN) == {"email_copy", "copy_of_copy", "lower_copy", "width"}
