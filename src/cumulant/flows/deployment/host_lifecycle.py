"""`cumulant up` on one machine of `deploy: hosts://`: its roles, and what it must have before it starts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.masking import fingerprint
from cumulant.core.network.hosts import is_loopback
from cumulant.core.progress import Progress, silent
from cumulant.flows.deployment.deployment import HostsDeployment, is_shared
from cumulant.flows.deployment.follow import follow
from cumulant.flows.deployment.host_conflicts import check_conflicts
from cumulant.flows.deployment.host_report import HostReport, read_reports
from cumulant.flows.deployment.versions import first_champion
from cumulant.flows.ledger.actions import verb
from cumulant.flows.serving.caller_tokens import needs_token
from cumulant.flows.stack.desired_state import LOOPBACK, read_desired_state
from cumulant.flows.stack.gateway_key import shared_key
from cumulant.flows.stack.served_versions import is_free
from cumulant.flows.stack.server_commands import refresh_commands
from cumulant.flows.stack.stack_processes import CONTROLLER, GATEWAY, ROLES, SERVERS, check_gateway
from cumulant.flows.traffic.rows import list_reports
from cumulant.project.host_name import host_name

if TYPE_CHECKING:
    from cumulant.flows.stack.status import Status
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


#: of a host, whose last part is no number, which would be a form of an IP address
_NAME = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9-]*\.)*(?=[0-9-]*[A-Za-z])[A-Za-z0-9][A-Za-z0-9-]*")


class HostOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` starts on this machine.

    `roles`: empty where everything is on it; `advertise`: where its servers listen, and other machines reach them.
    """

    roles: tuple[str, ...] = ()
    advertise: str = LOOPBACK
    insecure: bool = False
    #: Prometheus and Alertmanager run too
    observe: bool = False
    #: where the console and the API listen; empty: they do not run
    console: str = ""

    def has(self, role: str) -> bool:
        return not self.roles or role in self.roles

    @property
    def words(self) -> list[str]:
        """As options of the supervisor."""
        words = [word for role in self.roles for word in ("--role", role)]
        words += ["--advertise", self.advertise] if self.roles else []
        words += ["--insecure"] if self.insecure else []
        words += ["--observe"] if self.observe else []
        return [*words, *(["--console", self.console] if self.console else [])]


def host_options(
    project: Project,
    roles: Sequence[str],
    advertise: str,
    *,
    insecure: bool,
    observe: bool = False,
    console: str = "",
) -> HostOptions:
    """The options of this machine; without roles it has all of them.

    Raises:
        UsageError: they do not fit the environment.
        NotFoundError: the secret of the salt does not exist.
    """
    if not is_shared(project):
        if roles or advertise:
            raise UsageError(
                "`deploy` of this environment is local://: one machine does everything",
                subject="--role" if roles else "--advertise",
                hint=f"write environments.{project.environment}.deploy: hosts:// to divide the work between machines",
            )
        return HostOptions(insecure=insecure, observe=observe, console=console)
    chosen = tuple(role for role in ROLES if not roles or role in roles)
    check_salt(project)
    if SERVERS in chosen and not advertise and set(chosen) != set(ROLES):
        raise UsageError(
            "no address is given at which gateways on other machines reach the servers of this one",
            subject="--advertise",
            hint="name one of this machine: --advertise 10.0.0.5",
        )
    address = advertise or LOOPBACK
    if not _is_address(address):
        raise UsageError(
            f'"{address}" is no address of one machine',
            subject="--advertise",
            hint="write an IP address or a host name, without a scheme and a port: --advertise 10.0.0.5",
        )
    if SERVERS in chosen and not is_loopback(address) and not insecure and not needs_token(project):
        raise UsageError(
            f"{address} can be reached from other machines, and requests are not authenticated",
            subject="--advertise",
            hint="set CUMULANT_TOKEN on every machine, name a file of tokens as serving.token_file, or pass --insecure"
            " where the network is trusted",
        )
    return HostOptions(roles=chosen, advertise=address, insecure=insecure, observe=observe, console=console)


def check_salt(project: Project) -> None:
    """Refuse a salt that machines which serve together could not share, or that can be guessed.

    Raises:
        UsageError: it is in a file of this machine, or too short.
        NotFoundError: its secret does not exist.
    """
    if project.salt_source.is_file:
        raise UsageError(
            "machines that serve together must have one salt, and this environment names none",
            subject=f"environments.{project.environment}.salt",
            hint="write salt: ${secret:NAME} there, and give every machine the secret",
        )
    shared_key(project.salt())


def _is_address(text: str) -> bool:
    """Whether it is an IP address of one machine, or a host name; such as 0.0.0.0 is none that others can reach."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return _NAME.fullmatch(text) is not None
    return not address.is_unspecified and not address.is_multicast and "%" not in text


def prepare_host(
    project: Project,
    model: str,
    options: HostOptions,
    *,
    principal: Principal,
    report: Callable[[str], None],
    progress: Progress = silent,
) -> None:
    """Make ready what this machine's processes start from.

    Raises:
        UsageError: `model` is given to a machine that is no controller, or servers cannot listen at its address, or
            other machines have another salt.
        LeaseHeldError: another machine has this one's name.
        NotFoundError: the registry has no version to serve.
        MissingPartError: no gateway is installed where one is to run.
    """
    if model and not options.has(CONTROLLER):
        raise UsageError(
            f"what serves first is chosen where the controller runs, and this machine is {', '.join(options.roles)}",
            subject=model,
            hint="name it there: `cumulant up --role controller MODEL`",
        )
    if options.has(SERVERS) and not is_free(options.advertise, 0):
        raise UsageError(
            f"servers cannot listen at {options.advertise}, which is no address of this machine",
            subject="--advertise",
            hint="name an address that this machine has, at which gateways reach it",
        )
    check_conflicts(project.journal(), fingerprint(project.salt()))
    if options.has(GATEWAY):
        check_gateway(project)
    if options.has(CONTROLLER):
        first_champion(project, model, principal=principal, progress=progress)
    if options.has(SERVERS):
        refresh_commands(project, report)
        progress("copy the servables that are served")
        for fault in follow(project, HostsDeployment(project).read(project.name), options.advertise):
            report(f"{fault}; it is tried again")
    if text := _missing_champion_text(project):
        report(text)


def host_waits_for(project: Project, options: HostOptions, status: Status) -> str:
    """Which processes of this machine are not ready yet, in words; empty where all are."""
    names = ["gateway", "agent"] if options.has(GATEWAY) else []
    if options.has(SERVERS):
        state = read_desired_state(project.state, project.name)
        names += [served.name for served in state.current(datetime.now(UTC))]
    ready = {child.name for child in status.children if child.ready}
    late = [name for name in names if name not in ready]
    if late:
        return f"waiting for {', '.join(late)}"
    works = not options.has(GATEWAY) or any(
        report.ready for report in list_reports(project.journal()) if report.host == host_name()
    )
    return "" if works else "waiting for the gateway to work by the routes"


@verb("stack.show")
def missing_champion_text(project: Project, *, principal: Principal) -> str:
    """That the machines of `deploy: hosts://` wait for the first champion, and what chooses it; empty where there is
    one, and with `local://`.

    Raises:
        CumulantError: the journal does not answer.
    """
    del principal  # the check of it is all
    return _missing_champion_text(project)


def _missing_champion_text(project: Project) -> str:
    if not is_shared(project) or HostsDeployment(project).read(project.name).champion is not None:
        return ""
    return (
        f"no version of {project.name} is to be served yet; the machines wait for the first:"
        f" `{project.line('up --role controller')}`, on one of them or another, serves the champion, else"
        " the newest version that passed the gate"
    )


@verb("stack.show")
def list_hosts(project: Project, *, principal: Principal) -> list[HostReport]:
    """The machines of `deploy: hosts://`, as they reported last, and whose servers take other tokens than others; none
    with `local://`.

    Raises:
        CumulantError: the journal does not answer.
    """
    del principal  # the check of it is all
    return note_different_tokens(read_reports(project.journal())) if is_shared(project) else []


def note_different_tokens(reports: Sequence[HostReport]) -> list[HostReport]:
    """The reports; machines whose servers take other tokens than those of others have that as their trouble."""
    serving = [report for report in reports if report.tokens is not None]
    noted = []
    for report in reports:
        others = [each.host for each in serving if report.tokens is not None and each.tokens != report.tokens]
        text = f"its servers take other tokens of callers than those of {', '.join(others)}" if others else ""
        noted.append(msgspec.structs.replace(report, trouble="; ".join(filter(None, [report.trouble, text]))))
    return noted
