"""The plan of the tests with several processes."""

from cumulant.core.plan import Field, Source
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan

FIELDS = (Field("id", "int"), Field("card", "str"), Field("at", "time"), Field("amount", "float"))
card = source("tx").by("card")
PLAN = compile_plan(
    collect({"n": card.count(window="2h"), "total": card.sum("amount", window="2h")}),
    {"tx": Source("tx", ("id",), "at", FIELDS)},
    entity="tx",
    predict_at=None,
)
