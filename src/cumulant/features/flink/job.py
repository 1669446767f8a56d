"""A feature plan as a job of Flink: its query, the topic that it writes to, and what names both."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cumulant.core.errors import DefinitionError
from cumulant.core.ids import digest, short
from cumulant.core.plan import FeaturePlan
from cumulant.core.scope import Scope
from cumulant.features.definition.dtypes import Kind
from cumulant.features.definition.personal_features import personal_features
from cumulant.features.flink.compiler import JSON, KEY, FlinkQuery
from cumulant.features.flink.refusals import sources_read
from cumulant.features.flink.sql_text import COLUMN_TYPES, name, text
from cumulant.features.offline.groups import groups_of

#: the column of a result with the fingerprint of the plan
FINGERPRINT = "fingerprint"
_SINK = "feature rows"


class FeatureJob(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: of the job and of its topic, by scope and definition. `definition`: of the text that is run, without
    where topics are: a savepoint is of one text. `fingerprint`: of the plan without what documents its features, which
    each result has. `reads`: sources; `span`: seconds of the longest window, None where one has no end.
    """

    name: str
    definition: str
    fingerprint: str
    statements: tuple[str, ...]
    settings: Mapping[str, str]
    reads: tuple[str, ...] = ()
    span: float | None = None


def job_prefix(scope: Scope) -> str:
    """What the names of the jobs of a project begin with: names of a scope have no dots."""
    return f"cumulant.{scope.tenant}.{scope.project}.{scope.environment}."


def check_results(plan: FeaturePlan) -> None:
    """Refuse a plan whose results cannot be messages of a topic.

    Raises:
        DefinitionError: a feature or the key shows personal values, or its name is not possible there.
    """
    entity = plan.sources[plan.entity]
    taken = {*entity.key, FINGERPRINT}
    if clash := [of for of in plan.names if of in taken]:
        raise DefinitionError(
            f"results of a job cannot have these features: {', '.join(clash)}, which are names of its own columns",
            subject="features",
            hint=f"rename them: a result has the key ({', '.join(entity.key)}), the features and {FINGERPRINT}",
        )
    if divided := [of for of in entity.key if ";" in of]:
        raise DefinitionError(
            f'the key of results cannot have this column: "{divided[0]}", ";" is what divides columns there',
            subject=plan.entity,
            hint="rename the column in what writes the stream",
        )
    keys = {field.name for field in entity.fields if field.personal} & {*entity.key}
    hidden = personal_features(plan)
    personal = [of for of in plan.names if of in hidden]
    if keys or personal:
        shown = [*(f"{plan.entity}.{of}" for of in sorted(keys)), *personal]
        raise DefinitionError(
            f"results of a job cannot show personal values: {', '.join(shown)}; no erasure reaches messages of a topic",
            subject="features",
            hint="count or distinct of a personal column and windows keyed by one show no value; leave others to"
            " `cumulant ingest run`, in an environment without stream_engine",
        )


def feature_job(
    plan: FeaturePlan, query: FlinkQuery, scope: Scope, *, unconnected: FlinkQuery, options: Mapping[str, str]
) -> FeatureJob:
    """The job of a compiled plan. `unconnected`: the query without the connection to the brokers; `options`: of the
    connection to the topic of the results.

    Raises:
        DefinitionError: as `check_results`.
    """
    check_results(plan)
    entity = plan.sources[plan.entity]
    fingerprint = digest(_without_documentation(plan))
    kinds: dict[str, Kind] = {field.name: field.dtype for field in entity.fields if field.name in entity.key}
    kinds = {key: kinds[key] for key in entity.key} | {spec.name: spec.dtype for spec in plan.features}
    columns = [f"{name(column)} {COLUMN_TYPES[kind]}" for column, kind in kinds.items()]
    definition = digest([unconnected.tables, unconnected.text, dict(unconnected.settings), columns])
    of = f"{job_prefix(scope)}{short(definition)}"
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
        reads=tuple(sources_read(plan)),
        span=_span(plan),
    )


def _span(plan: FeaturePlan) -> float | None:
    reaches = [group.reach_us(measure) for group in groups_of(plan) for measure in group.measures.values()]
    ended = [reach for reach in reaches if reach is not None]
    return max(ended, default=0) / 1_000_000 if len(ended) == len(reaches) else None


def _without_documentation(plan: FeaturePlan) -> FeaturePlan:
    """With equal features that compute the same. Plans without documentation are as they are for servers."""
    features = [msgspec.structs.replace(spec, description="", owner="", tags=()) for spec in plan.features]
    return msgspec.structs.replace(plan, features=tuple(features))
