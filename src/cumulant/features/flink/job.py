"""A feature plan as a job of Flink: its query, the topic that it writes to, and what names both."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cumulant.core.errors import DefinitionError
from cumulant.core.ids import digest, short
from cumulant.core.plan import FeaturePlan
from cumulant.core.scope import Scope
from cumulant.features.definition.dtypes import Kind
from cumulant.features.flink.compiler import JSON, KEY, FlinkQuery
from cumulant.features.flink.sql_text import COLUMN_TYPES, name, text

#: the column of a result with the fingerprint of the plan
FINGERPRINT = "fingerprint"
_SINK = "feature rows"


class FeatureJob(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: of the job and of its topic, by scope and definition. `definition`: of the text that is run, without
    where topics are: a savepoint is of one text. `fingerprint`: of the plan, which each result has.
    """

    name: str
    definition: str
    fingerprint: str
    statements: tuple[str, ...]
    settings: Mapping[str, str]


def job_prefix(scope: Scope) -> str:
    """What the names of the jobs of a project begin with: names of a scope have no dots."""
    return f"cumulant.{scope.tenant}.{scope.project}.{scope.environment}."


def feature_job(
    plan: FeaturePlan, query: FlinkQuery, scope: Scope, *, neutral: FlinkQuery, options: Mapping[str, str]
) -> FeatureJob:
    """The job of a compiled plan. `neutral`: the query without where topics are; `options`: of the connection to the
    topic of the results.

    Raises:
        DefinitionError: a feature has the name of another column of the results.
    """
    entity = plan.sources[plan.entity]
    taken = {*entity.key, FINGERPRINT}
    if clash := [of for of in plan.names if of in taken]:
        raise DefinitionError(
            f"results of a job cannot have these features: {', '.join(clash)}, which are names of its own columns",
            subject="features",
            hint=f"rename them: a result has the key ({', '.join(entity.key)}), the features and {FINGERPRINT}",
        )
    fingerprint = digest(plan)
    definition = digest([fingerprint, neutral.tables, neutral.text, dict(neutral.settings)])
    of = f"{job_prefix(scope)}{short(definition)}"
    kinds: dict[str, Kind] = {field.name: field.dtype for field in entity.fields if field.name in entity.key}
    kinds = {key: kinds[key] for key in entity.key} | {spec.name: spec.dtype for spec in plan.features}
    columns = [f"{name(column)} {COLUMN_TYPES[kind]}" for column, kind in kinds.items()]
    table = {
        "connector": "kafka",
        "topic": of,
        **options,
        **JSON,
        "key.format": "json",
        "key.json.timestamp-format.standard": JSON["json.timestamp-format.standard"],
        "key.fields": ";".join(entity.key),
        "sink.delivery-guarantee": "exactly-once",
        "sink.transactional-id-prefix": of,
        "properties.transaction.timeout.ms": "900000",
    }
    listed = ", ".join(f"{text(key)} = {text(value)}" for key, value in table.items())
    sink = f"CREATE TEMPORARY TABLE {name(_SINK)} ({', '.join(columns)}, `{FINGERPRINT}` STRING) WITH ({listed})"
    shown = [*(f"{name(KEY + key)}" for key in entity.key), *map(name, plan.names)]
    insert = f"INSERT INTO {name(_SINK)} SELECT {', '.join(shown)}, {text(short(fingerprint))} FROM (\n{query.text})"
    return FeatureJob(
        name=of,
        definition=definition,
        fingerprint=short(fingerprint),
        statements=(*query.tables, sink, insert),
        settings=query.settings,
    )
