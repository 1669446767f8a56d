"""Prometheus and Alertmanager beside a stack: their commands and configuration, in the state folder.

STATE/observe/prometheus.yml, slo.rules.yml, ingest.rules.yml    written anew at each start
STATE/observe/alertmanager.yml                 written once: a user may add receivers to it
STATE/observe/KIND.json                        where the processes of a kind are reached
STATE/observe/token                            that the servers ask scrapers for, if any
STATE/observe/api_token                        for the metrics of the API, made anew at each start and each week
STATE/observe/prometheus/, alertmanager/       what the programs store
"""

from __future__ import annotations

import io
import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from ruamel.yaml import YAML

from cumulant.core.errors import MissingPartError
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.flows.observe.ingest_rules import ingest_rules_text
from cumulant.flows.observe.scrape_token import renew_scrape_token
from cumulant.flows.observe.slo_rules import rules_text, service_name
from cumulant.flows.stack.reconcile import WantedProcess
from cumulant.serving.access_token import read_token

if TYPE_CHECKING:
    from cumulant.project.project import Project

FOLDER = "observe"
#: kinds of processes that are scraped
SCRAPED = ("servers", "gateway", "controller", "api")
#: of the API
API_TOKEN, _API_METRICS = "api_token", "/v1/metrics"
#: of the metrics that only the API has
_API_FAMILIES = "cumulant_api_"
#: names that distributions give the programs, the usual one first
_PROMETHEUS, _ALERTMANAGER = ("prometheus",), ("alertmanager", "prometheus-alertmanager")
_PROMETHEUS_PORT, _ALERTMANAGER_PORT = 9090, 9093
_INTERVAL = "15s"
_SLO_RULES, _INGEST_RULES = "slo.rules.yml", "ingest.rules.yml"

Find = Callable[[str], str | None]


class ObservingPrograms(msgspec.Struct, frozen=True):
    """The installed programs; without Alertmanager, Prometheus shows its alerts itself."""

    prometheus: str
    alertmanager: str | None


def find_programs(find: Find = shutil.which) -> ObservingPrograms:
    """Raises MissingPartError where Prometheus is not installed."""
    prometheus = _first(find, _PROMETHEUS)
    if prometheus is None:
        raise MissingPartError(
            "this needs the program Prometheus, which is not installed",
            subject="prometheus",
            hint="apt-get install prometheus prometheus-alertmanager, brew install prometheus, or the programs of "
            "prometheus.io, so that `prometheus` is on the path",
        )
    return ObservingPrograms(prometheus, _first(find, _ALERTMANAGER))


def _first(find: Find, names: tuple[str, ...]) -> str | None:
    return next((path for name in names if (path := find(name)) is not None), None)


def observing_processes(
    project: Project, programs: ObservingPrograms, *, interval: str = _INTERVAL
) -> list[WantedProcess]:
    """The processes, whose configuration is written here.

    Raises:
        StorageError: the state folder cannot be written.
    """
    folder = project.state / FOLDER
    alertmanager = None if programs.alertmanager is None else _free_address(_ALERTMANAGER_PORT)
    prometheus = _free_address(_PROMETHEUS_PORT)
    with storage_errors(folder):
        _write_configuration(project, folder, alertmanager, interval)
    processes = [_process("prometheus", prometheus, _prometheus_command(programs.prometheus, folder, prometheus))]
    if programs.alertmanager is not None and alertmanager is not None:
        command = _alertmanager_command(programs.alertmanager, folder, alertmanager)
        processes.append(_process("alertmanager", alertmanager, command))
    return processes


def _process(name: str, address: str, command: tuple[str, ...]) -> WantedProcess:
    return WantedProcess(name=name, kind="observer", command=command, url=f"http://{address}")


def _prometheus_command(program: str, folder: Path, address: str) -> tuple[str, ...]:
    return (
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        "--storage.tsdb.retention.time=35d",
        "--storage.tsdb.retention.size=2GB",
        "--enable-feature=exemplar-storage",
        f"--web.listen-address={address}",
        "--log.level=warn",
    )


def _alertmanager_command(program: str, folder: Path, address: str) -> tuple[str, ...]:
    return (
        program,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
        "--log.level=warn",
    )


def _free_address(preferred: int) -> str:
    """On loopback: the program's usual port, or another one where that is taken."""
    for port in (preferred, 0):
        with suppress(OSError), socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
            return f"127.0.0.1:{free.getsockname()[1]}"
    return f"127.0.0.1:{preferred}"


def _write_configuration(project: Project, folder: Path, alertmanager: str | None, interval: str) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for kind in SCRAPED:  # Prometheus warns of files that are not there
        replace_file(folder / f"{kind}.json", b"[]", durable=False)
    token = read_token(None, os.environ, least=1)
    if token is not None:
        replace_file(folder / "token", token.encode(), private=True)
    renew_scrape_token(project, folder / API_TOKEN)  # else that of before is good for weeks
    objectives, rules = project.policies.objectives, list[str]()
    if any(policy.spec.stream is not None for policy in project.policies.sources.values()):
        rules.append(_INGEST_RULES)
        replace_file(folder / _INGEST_RULES, ingest_rules_text().encode(), durable=False)
    if objectives:
        rules.append(_SLO_RULES)
        text = rules_text(service_name(project.name, project.environment), project.name, objectives)
        replace_file(folder / _SLO_RULES, text.encode(), durable=False)
    configuration = prometheus_configuration(
        interval=interval,
        alertmanager=alertmanager,
        rules=rules,
        token=token is not None,
        api_token=(folder / API_TOKEN).exists(),  # without one, the other processes are scraped
    )
    replace_file(folder / "prometheus.yml", _yaml(configuration), durable=False)
    own = folder / "alertmanager.yml"
    if alertmanager is not None and not own.exists():
        replace_file(own, _yaml({"route": {"receiver": "none"}, "receivers": [{"name": "none"}]}), durable=False)


def prometheus_configuration(
    *,
    interval: str,
    alertmanager: str | None = None,
    rules: Sequence[str] = (),
    token: bool = False,
    api_token: bool = False,
) -> dict[str, Any]:
    """The configuration, whose paths are relative to its file. Series of a project keep their own labels."""
    jobs: list[dict[str, Any]] = [
        {
            "job_name": f"cumulant-{kind}",
            "honor_labels": True,
            "file_sd_configs": [{"files": [f"{kind}.json"], "refresh_interval": "5s"}],
        }
        for kind in SCRAPED
    ]
    if token:
        jobs[0]["authorization"] = {"credentials_file": "token"}
    jobs[-1]["metrics_path"] = _API_METRICS
    # The API repeats the project's series, which the controller has: they would differ in job and instance alone.
    jobs[-1]["metric_relabel_configs"] = [
        {"source_labels": ["__name__"], "regex": f"{_API_FAMILIES}.*", "action": "keep"}
    ]
    if api_token:
        jobs[-1]["authorization"] = {"credentials_file": API_TOKEN}
    configuration: dict[str, Any] = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "scrape_configs": jobs,
    }
    if rules:
        configuration["rule_files"] = list(rules)
    if alertmanager is not None:
        configuration["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    return configuration


def _yaml(document: Mapping[str, Any]) -> bytes:
    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style = False
    yaml.dump(document, text)
    return text.getvalue().encode()
