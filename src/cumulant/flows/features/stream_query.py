"""The features of a project's streams as a job of Flink SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.core.errors import UsageError
from cumulant.core.plan import FeaturePlan
from cumulant.core.units import micros
from cumulant.features.flink.compiler import JSON, FlinkQuery, StreamTable, compile_query
from cumulant.features.flink.refusals import sources_read

if TYPE_CHECKING:
    from cumulant.project.project import Project

_PORT = 9092


def stream_query(project: Project, plan: FeaturePlan) -> FlinkQuery:
    """The job over the topics of Kafka that the sources of the plan are.

    Raises:
        UsageError: a source is no stream of JSON, or streams are not on Kafka.
        DefinitionError: Flink SQL cannot compute the plan.
    """
    functions = {name: source.prepare for name, source in project.spec.data.items() if source.prepare is not None}
    streams = {name: _stream(project, name) for name in sources_read(plan)}
    return compile_query(plan, streams, functions=functions)


def _stream(project: Project, name: str) -> StreamTable:
    policy = project.policies.source(name)
    topic = policy.spec.stream
    if topic is None:
        raise UsageError(
            f"{name} is no stream, and a job of Flink reads streams",
            subject=name,
            hint=f"give data: {name}: a `stream`, or compute the history: cumulant features get",
        )
    if policy.spec.format != "auto":
        raise UsageError(f"{name} has messages in {policy.spec.format}, and the job reads JSON", subject=name)
    options = {
        "connector": "kafka",
        "topic": topic,
        "properties.bootstrap.servers": _brokers(project.endpoints.streams),
        "scan.startup.mode": "earliest-offset",
        "scan.watermark.idle-timeout": f"{int(policy.idle.total_seconds() * 1000)} ms",
        **JSON,
    }
    return StreamTable(None if policy.lateness is None else micros(policy.lateness), options)


def _brokers(url: str) -> str:
    """The addresses in `kafka://[USER@]HOST[:PORT][,HOST...]`. How to connect is a setting of whoever runs the job."""
    scheme, _, rest = url.partition("://")
    if scheme not in {"kafka", "kafkas"}:
        raise UsageError(
            "the streams of this environment are not on Kafka, which a job of Flink reads",
            subject="streams",
            hint="choose an environment with `streams: kafka://HOST:9092`: `--env NAME`",
        )
    hosts = rest.partition("?")[0].rpartition("@")[2].rstrip("/").split(",")
    return ",".join(host if ":" in host.rpartition("]")[2] else f"{host}:{_PORT}" for host in hosts)
