"""Serving of a registered model: update its stored features and start the data plane program."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.errors import CumulantError, EngineUnavailableError, PortInUseError
from cumulant.core.ids import digest, short
from cumulant.core.progress import Progress, silent
from cumulant.core.scope import Scope
from cumulant.core.servable import Servable
from cumulant.core.system.child_processes import stop
from cumulant.flows.data.memory_budget import memory_budget, scratch_folder
from cumulant.flows.data.stream_records import last_batches
from cumulant.flows.data.validate import load_snapshot, snapshots_of
from cumulant.flows.features.feature_table import deletions, scans, used_sources
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.ledger.step_function import StepFunction, supports_hosts
from cumulant.flows.serving.caller_tokens import bindings_file, with_token_file
from cumulant.flows.serving.servable_copies import copy_with_version
from cumulant.flows.serving.services import note_use, share_table_use
from cumulant.flows.serving.spawning import spawn
from cumulant.ports.driver import Need
from cumulant.ports.registry import ModelVersion
from cumulant.ports.tables import Protection
from cumulant.serving.options import OPEN_ACCESS, Values, declared, overridden, words
from cumulant.serving.spec import ServingSpec

if TYPE_CHECKING:
    from cumulant.core.plan import FeaturePlan
    from cumulant.data.snapshot import Snapshot
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Transaction
    from cumulant.project.project import Project

ONLINE_STATE = "online state"
#: of a table of the online store: when it was filled
FILLED = "filled"
#: the folder of this machine with notes of which process serves from which copy
USES = "uses"
#: folder of the rows that wait for their upload
SPOOL = "log-spool"
_START_SECONDS, _END_SECONDS, _POLL_SECONDS = 60.0, 30.0, 0.02


def driver_needs(project: Project) -> list[Need]:
    """What serving needs of the online store, in a project that declares how it serves or releases."""
    if not any(map(project.file.declares, ("serving", "release"))):
        return []
    return [
        Need("online", "swap", "a server reads stored features while newer ones replace them"),
        Need("online", "processes", "several processes of servers read and update stored features"),
    ]


class PreparedService(msgspec.Struct, frozen=True, kw_only=True):
    """What the data plane needs: the servable's folder and, where features are stored, the state's place."""

    model: ModelVersion
    folder: str
    online: str | None = None
    table: str | None = None
    #: whose state it is, and where a secret of the store's URL is looked up
    scope: str | None = None
    secrets: str | None = None
    as_of: datetime | None = None
    entities: int = 0
    #: folder where a server notes what it serves from, so that `clean` does not delete it
    uses: str
    #: notes for other machines, whose `clean` may not delete the table either, that a process serves from it; called in
    #: the process that the server ends with
    share: Callable[[int], None] | None = None
    #: folder of the prediction log, and the file with the key of the hashes in it; without one, values are hidden there
    log: str
    #: URL of the log that readers read, where that is not the folder
    log_upload: str | None = None
    #: that key, where the environment has it as a secret: it is read when a server starts, and not stored
    salt: Callable[[], bytes] | None = None
    log_key: str | None = None
    #: folder or URL of the log of posted labels
    labels: str | None = None
    #: folder or URL of the log of refused requests
    refusals: str | None = None
    #: the driver that decides what callers may do, the file with who has which role, and the region; None: the server's
    #: own defaults
    access: str | None = None
    access_bindings: str | None = None
    region: str | None = None
    #: the section `serving` of the project file
    settings: ServingSpec = ServingSpec()


class RunningServer(msgspec.Struct, frozen=True):
    """A data plane that answers."""

    url: str
    pid: int
    models: tuple[tuple[str, str], ...] = ()
    grpc: str | None = None


@verb("model.serve")
def prepare_service(
    project: Project,
    uri: str,
    *,
    principal: Principal,
    as_of: datetime | None = None,
    progress: Progress = silent,
) -> PreparedService:
    """The folder and the online state to serve a model with; state as of `as_of`, default all that is known.

    Raises:
        NotFoundError: no such model.
    """
    with open_run(project, "serve", principal=principal, progress=progress) as context:
        version = project.registry().resolve(uri)
        return _prepare(context, version, copy_with_version(project, version), as_of)


@verb("model.serve")
def renew_service(
    project: Project, version: ModelVersion, folder: Path, *, principal: Principal, progress: Progress = silent
) -> PreparedService:
    """As `prepare_service`, of a version that was served before from `folder`; it needs no registry."""
    with open_run(project, "serve", principal=principal, progress=progress) as context:
        return _prepare(context, version, folder, None)


def _prepare(context: Context, version: ModelVersion, folder: Path, as_of: datetime | None) -> PreparedService:
    from cumulant.servable.folder import load_description

    project, described = context.project, load_description(folder)
    plan = described.plan if isinstance(described, Servable) else None
    service = service_of(project, version, folder)
    if service.log_key is None and plan is not None and any(field.personal for field in plan.request):
        service = msgspec.structs.replace(service, salt=project.salt)
    if plan is not None and plan.needs_state:
        snapshots, _ = snapshots_of(context, plan.sources)
        # A day before the moment, so that requests just before it are answered too.
        since = None if as_of is None else as_of - timedelta(days=1)
        table, entities = materialize(context, plan, snapshots, as_of=as_of, since=since)
        shared = supports_hosts(project, "online")
        service = msgspec.structs.replace(
            service,
            online=project.endpoints.online,
            table=table,
            as_of=as_of,
            entities=entities,
            share=partial(share_table_use, project, table=table) if shared else None,
        )
    # Before the run ends, and with it the time in which nothing is cleaned.
    note(service, os.getpid())
    if service.share is not None:
        service.share(os.getpid())
    return service


def service_of(project: Project, model: ModelVersion, folder: Path) -> PreparedService:
    """A servable's folder by the present settings of the project, without stored features."""
    url, inbox, refusals = project.log_url(), project.log_url("inbox"), project.log_url("refusals")
    log = project.drivers.path(url)
    return PreparedService(
        model=model,
        folder=str(folder),
        uses=str(project.state / USES),
        log=str(project.state / SPOOL if log is None else log),
        log_upload=url if log is None else None,
        log_key=project.salt_source.path(),
        labels=str(project.drivers.path(inbox) or inbox),
        refusals=str(project.drivers.path(refusals) or refusals),
        scope=f"{project.scope.tenant}/{project.scope.project}/{project.scope.environment}",
        secrets=project.endpoints.secrets,
        access=project.endpoints.access,
        access_bindings=bindings_file(project),
        region=project.scope.region,
        settings=with_token_file(project),
    )


def note(service: PreparedService, pid: int) -> None:
    """Keep what `service` needs from `clean` while the process lives."""
    note_use(Path(service.uses), pid, folder=service.folder, table=service.table)


def state_table(inputs: object) -> str:
    """The online table that the step `online state` of these inputs fills."""
    return f"state_{short(digest(inputs))}"


def materialize(
    context: Context,
    plan: FeaturePlan,
    snapshots: Mapping[str, Snapshot],
    *,
    as_of: datetime | None,
    since: datetime | None = None,
    into: str = "",
    anew: bool = False,
) -> tuple[str, int]:
    """The step that fills the online state; returns the state's table and how many entities it holds.

    A table that is there is not filled again, since it may have moved on; what was posted since is brought into it.
    `into`: a table that servers read already, in place of the one that is named by the data. `anew`: fill it although
    it is there, as after an erasure.
    """
    from cumulant.core.masking import fingerprint
    from cumulant.features.online.entity_cache import is_filled
    from cumulant.features.online.hashed_keys import HashedKeys
    from cumulant.features.online.online import OnlineFeatures
    from cumulant.features.online.state import STATE_FORMAT

    hashed = HashedKeys.of(plan, context.project.salt)
    used = used_sources(plan, snapshots)
    inputs = {
        "plan": msgspec.to_builtins(plan),
        "snapshots": used,
        "as_of": as_of and as_of.isoformat(),
        "since": since and since.isoformat(),
        "format": STATE_FORMAT,
    }
    if hashed.active:
        inputs["keys"] = fingerprint(context.project.salt())
    table = state_table(inputs)
    if into not in ("", table):
        inputs, table = {**inputs, "table": into}, into
    store = context.project.online()

    def tell(transaction: Transaction, result: dict[str, object]) -> None:
        from cumulant.features.events import StateFilled

        transaction.emit(msgspec.convert({**result, "as_of": as_of}, StateFilled))

    outcome = context.step(
        ONLINE_STATE,
        inputs,
        lambda: _fill(context, plan, snapshots, table=table, as_of=as_of, since=since),
        function=StepFunction(f"{__name__}:{run_online_state.__name__}", {"inputs": inputs, "table": table}),
        uses=("online",),
        verify=lambda _: not anew and is_filled(store, table),
        write=tell,
    )
    OnlineFeatures(hashed.plan, store, table).catch_up()
    return table, int(str(outcome.result["entities"]))


class _StateInputs(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of the step `online state`, as it records them."""

    plan: object
    snapshots: dict[str, str]
    as_of: datetime | None
    since: datetime | None


def run_online_state(context: Context, *, inputs: dict[str, object], table: str) -> dict[str, object]:
    """The step `online state` in a process of its own: the table, and what was filled."""
    from cumulant.core.plan import read_plan

    made_of = msgspec.convert(inputs, _StateInputs)
    snapshots = {name: load_snapshot(context.project, identity) for name, identity in made_of.snapshots.items()}
    plan = read_plan(made_of.plan)
    return _fill(context, plan, snapshots, table=table, as_of=made_of.as_of, since=made_of.since)


def _fill(
    context: Context,
    plan: FeaturePlan,
    snapshots: Mapping[str, Snapshot],
    *,
    table: str,
    as_of: datetime | None,
    since: datetime | None,
) -> dict[str, object]:
    from cumulant.features.online.hashed_keys import HashedKeys
    from cumulant.features.online.materialization import materialize

    store, hashed = context.project.online(), HashedKeys.of(plan, context.project.salt)
    filled = materialize(
        hashed.plan,
        hashed.frames(scans(context.project, snapshots, used_sources(plan, snapshots), as_of=as_of)),
        store,
        table=table,
        as_of=as_of,
        since=since,
        scope=hashed.log_scope(context.project.name),
        deletions=hashed.frames(deletions(context.project, plan, snapshots, as_of=as_of)),
        applied={} if as_of is not None else last_batches(context.project, snapshots),
        progress=context.progress,
        memory=memory_budget(context.project).memory,
        scratch=scratch_folder(context.project),
    )
    declared = {"protect": msgspec.json.encode(state_protection(plan)).decode(), FILLED: context.now().isoformat()}
    store.put_meta(table, store.meta(table) | declared)
    return {"table": table, **msgspec.to_builtins(filled)}


def state_protection(plan: FeaturePlan) -> Protection:
    """What is personal in a table of online state: keys by the subject of a source, and personal columns of sources."""
    sources = plan.sources.values()
    subjects = sorted({source.subject for source in sources if isinstance(source.subject, str)})
    columns = sorted({field.name for source in sources for field in source.fields if field.personal})
    return Protection(subjects[0] if len(subjects) == 1 else None, tuple(columns))


def server_command(service: PreparedService, *, http: str, given: Values, ready: Path | None = None) -> list[str]:
    """The command line that serves `service`: by the project file, overridden by `given`."""
    own: dict[str, Any] = {
        **declared(service.settings),
        "log": service.log,
        "log_upload": service.log_upload,
        "labels": service.labels,
        "refusals": service.refusals,
        "salt_file": service.log_key,
    }
    if service.labels is None:
        del own["labels_size"]
    if service.access not in (None, OPEN_ACCESS):
        own |= {"access": service.access, "scope": service.scope, "secrets": service.secrets}
        own["access_bindings"] = service.access_bindings
    if service.region not in (None, Scope().region):
        own["region"] = service.region
    if service.online:
        own |= {"online": service.online, "state_table": service.table, "scope": service.scope}
    if "password=" in (service.online or "") or "://" in (service.labels or ""):
        own["secrets"] = service.secrets
    return folders_command([service.folder], http=http, given=overridden(own, given), ready=ready)


def folders_command(folders: Sequence[str], *, http: str, given: Values, ready: Path | None = None) -> list[str]:
    """The command line that serves servables' folders; `given`: values by the names of options, such as `log_keep`."""
    line = [sys.executable, "-m", "cumulant.serving", *folders]
    return line + words({**given, "http": http, "ready_file": ready})


@contextmanager
def run_server(service: PreparedService, *, http: str = "127.0.0.1:0", keep: bool = False) -> Iterator[RunningServer]:
    """The data plane as a child process, ended with the block unless `keep`.

    Raises:
        PortInUseError: the address is taken.
        EngineUnavailableError: it ended, or did not answer within a minute.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready, log = Path(folder) / "ready.json", Path(folder) / "log"
        with log.open("wb") as stream:
            process = spawn(
                server_command(service, http=http, given={"parent": None if keep else os.getpid()}, ready=ready),
                stderr=stream,
                salt=None if service.salt is None else service.salt(),
                own_session=keep,
            )
        try:
            note(service, process.pid)
            if keep and service.share is not None:
                service.share(process.pid)
            yield await_ready(process, ready, lambda: _ended_error(process, log))
        except BaseException:
            keep = False
            raise
        finally:
            if not keep:
                stop(process, _END_SECONDS)


def await_ready(process: subprocess.Popen[bytes], ready: Path, ended: Callable[[], CumulantError]) -> RunningServer:
    """The ready line of the server, once it answers.

    Raises:
        CumulantError: `ended()`, where its process ended before.
        EngineUnavailableError: it does not answer within a minute.
    """
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if ready.exists() and (text := ready.read_bytes()):
            return msgspec.json.decode(text, type=RunningServer)
        if process.poll() is not None:
            raise ended()
        time.sleep(_POLL_SECONDS)
    raise EngineUnavailableError("the server did not answer within a minute", hint="see `cumulant doctor`")


def _ended_error(process: subprocess.Popen[bytes], log: Path) -> CumulantError:
    text = log.read_text(errors="replace").strip().removeprefix("error: ")
    kind = PortInUseError if process.returncode == 3 else EngineUnavailableError
    return kind(f"the server ended before it answered: {text}", hint="see `cumulant doctor`")
