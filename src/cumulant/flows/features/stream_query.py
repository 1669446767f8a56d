"""The features of a project's streams as a job of Flink SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cumulant.core.errors import UsageError
from cumulant.core.network.hosts import is_loopback
from cumulant.core.network.urls import host_port
from cumulant.core.plan import FeaturePlan
from cumulant.core.units import micros
from cumulant.features.flink.compiler import JSON, FlinkQuery, StreamTable, compile_query
from cumulant.features.flink.refusals import sources_read
from cumulant.ports.streams import JobTopics

if TYPE_CHECKING:
    from cumulant.project.project import Project

_PORT = 9092
_CLIENT, _SHADED = "org.apache.kafka.common.security", "org.apache.flink.kafka.shaded."


def stream_query(project: Project, plan: FeaturePlan, connection: Mapping[str, str] | None = None) -> FlinkQuery:
    """The job over the topics of Kafka that the sources of the plan are. `connection`: options of Flink's connector;
    without, the addresses of the brokers alone.

    Raises:
        UsageError: a source is no stream of JSON, or streams are not on Kafka.
        DefinitionError: Flink SQL cannot compute the plan.
    """
    functions = {name: source.prepare for name, source in project.spec.data.items() if source.prepare is not None}
    streams = {name: _stream(project, name, connection) for name in sources_read(plan)}
    return compile_query(plan, streams, functions=functions)


def _stream(project: Project, name: str, connection: Mapping[str, str] | None) -> StreamTable:
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
        **({"properties.bootstrap.servers": _brokers(project)} if connection is None else connection),
        "scan.startup.mode": "earliest-offset",
        "scan.watermark.idle-timeout": f"{int(policy.idle.total_seconds() * 1000)} ms",
        **JSON,
    }
    return StreamTable(None if policy.lateness is None else micros(policy.lateness), options)


def check_broker(project: Project) -> None:
    """Raises UsageError: streams are not on Kafka."""
    if project.endpoints.streams.partition("://")[0] not in {"kafka", "kafkas"}:
        raise UsageError(
            "the streams of this environment are not on Kafka, which a job of Flink reads",
            subject="streams",
            hint="choose an environment with `streams: kafka://HOST:9092`: `--env NAME`",
        )


def _brokers(project: Project) -> str:
    """The addresses in `kafka://[USER@]HOST[:PORT][,HOST...]`. How to connect is a setting of whoever runs the job."""
    check_broker(project)
    rest = project.endpoints.streams.partition("://")[2]
    hosts = rest.partition("?")[0].rpartition("@")[2].rstrip("/").split(",")
    return ",".join(host_port(host, _PORT) or host for host in hosts)


def job_connection(project: Project, *, encrypted: bool) -> dict[str, str]:
    """The connection of a job to the brokers, as options of Flink's connector. `encrypted`: what is sent to the engine.

    Raises:
        UsageError: a password would be sent to another machine as it is, or the driver has no such connection.
        NotFoundError: there is no such secret.
    """
    streams = project.streams()
    assert isinstance(streams, JobTopics), "streams are on Kafka"
    settings = streams.java_settings()
    engine = urlsplit(project.endpoints.stream_engine or "").hostname or ""
    if "sasl.jaas.config" in settings and not encrypted and not is_loopback(engine):
        raise UsageError(
            "the password of the brokers would be sent to Flink as it is",
            subject="stream_engine",
            hint="write flinks://, for an encrypted connection to its gateway",
        )
    # Flink's connector for SQL has the client in packages of its own
    return {f"properties.{key}": value.replace(_CLIENT, _SHADED + _CLIENT) for key, value in settings.items()}
