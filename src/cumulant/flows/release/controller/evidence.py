"""Evidence of a running release: failures and times from the gateway's log, predictions from the prediction log.

A request that never reached a server is in no prediction log, and a mirrored one is in no log of the gateway: each
figure is taken where it is whole.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.system.json_files import read_json
from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm, Exchange
from cumulant.core.units import to_micros
from cumulant.flows.release.controller.effects import is_external
from cumulant.flows.release.controller.http_probe import fetch_json
from cumulant.flows.release.controller.mirrored_rows import MirroredEvidence, read_mirrored
from cumulant.flows.release.controller.rescues import RescuedRequests
from cumulant.flows.stack.status import STATUS
from cumulant.ports.log import Log
from cumulant.release.evidence.health import RECENT, ArmHealth, RecentHealth, count_failures
from cumulant.release.evidence.look import Look, LossPair, LossPairs, Requests, ScorePairs, counting

if TYPE_CHECKING:
    from cumulant.core.clock import Clock
    from cumulant.flows.release.controller.custom_metrics import CustomMetrics
    from cumulant.ports.traffic import ExchangeSource, Traffic
    from cumulant.release.state import Release


_SECOND = 1_000_000
#: exchanges of one reading, and of one look
_PAGE, _MOST = 100_000, 1_000_000
_PROBE_SECONDS = 0.4
#: a mark that lies so far before or ahead of the clock came from a clock that jumped
_JUMP = 600 * _SECOND
_HOUR = 3600 * _SECOND

OutputShape = frozenset[tuple[str, str]]


class LabelSource(Protocol):
    """A source of labels of mirrored rows, each returned once."""

    def read_losses(self, release: Release, after: str) -> tuple[Sequence[LossPair], str]:
        """Both arms' losses in rows that were labelled since the cursor `after` (empty: since the release began),
        and the next cursor.
        """
        ...


class NoLabels:
    """A source without labels."""

    def read_losses(self, release: Release, after: str) -> tuple[Sequence[LossPair], str]:
        """Nothing."""
        del release
        return (), after


class Cursor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The position up to which each source is counted, stored in the row as one text."""

    gateway: str = ""
    #: of the prediction log, microseconds since 1970 UTC; 0: nothing is counted yet
    pairs: int = 0
    labels: str = ""

    @classmethod
    def of(cls, text: str) -> Cursor:
        """What `str` wrote. Another text is a cursor of the gateway alone."""
        try:
            return msgspec.json.decode(text, type=cls) if text.startswith("{") else cls(gateway=text)
        except msgspec.DecodeError:
            return cls(gateway=text)

    def __str__(self) -> str:
        return msgspec.json.encode(self).decode()


class LiveEvidence:
    """Evidence from the running system.

    Args:
        exchanges: the requests that the gateways answered.
        stack: the supervisor's folder, whose status counts the restarts of servers.
        servers: the states of servers on several machines by URL, in place of that status.
        log: the prediction log.
        settle: seconds after which the rows of a moment are taken to have reached the prediction log.
        report: is told in a sentence what could not be read.
        token: of this project's servers, which may check who asks for their outputs.
    """

    def __init__(
        self,
        traffic: Traffic,
        *,
        exchanges: ExchangeSource,
        stack: Path,
        log: Log,
        own: CustomMetrics,
        clock: Clock,
        report: Callable[[str], None],
        labels: LabelSource | None = None,
        settle: float = 15.0,
        steady: Callable[[], float] = time.monotonic,
        servers: Callable[[], dict[str, ServerStatus]] | None = None,
        token: str | None = None,
    ) -> None:
        self._servers, self._has_machines = servers or (lambda: read_server_status(stack)), servers is not None
        self._traffic, self._source, self._log, self._own = traffic, exchanges, log, own
        self._labels = labels or NoLabels()
        self._clock, self._steady, self._report = clock, steady, report
        self._settle, self._token = round(settle * _SECOND), token
        self._release = ""
        self._lives, self._recent = ReadinessTimer(steady), _Recent(exchanges, steady)
        self._rescues = RescuedRequests(steady)
        self._shape: OutputShape | None = None
        self._misshapen = 0

    def health(self, release: Release) -> RecentHealth:
        """The last seconds of both arms. Neither arm is blamed for what cannot be read."""
        self._turn_to(release)
        servers, ready = self._servers(), self._ready(release)
        exchanges = self._recent.exchanges(release)
        if self._may_lose_machines(release):
            self._rescues.observe(_arms(release), servers)
            exchanges = self._rescues.count_recent(exchanges, RECENT)
        recent = Requests.of(exchanges)
        arms = {arm: self._arm_health(release, arm, servers, ready.get(arm.name), recent) for arm in _arms(release)}
        by_name: dict[str, ArmHealth] = {arm.name: health for arm, health in arms.items()}
        candidate = by_name[CANDIDATE]
        if candidate.not_ready == 0:
            candidate = msgspec.structs.replace(candidate, misshapen=self._misshapen + self._other_shape(release))
        return RecentHealth(champion=by_name[CHAMPION], candidate=candidate)

    def look(self, release: Release, seconds: float) -> tuple[Look, str]:
        """Everything since the release's cursor, and the next one."""
        self._turn_to(release)
        cursor = Cursor.of(release.cursor)
        exchanges, gateway = self._exchanges(release, cursor.gateway)
        pairs, mark = self._read_mirrored(release, cursor.pairs)
        self._misshapen += pairs.misshapen
        graded, labels = self._read_losses(release, cursor.labels)
        after = str(Cursor(gateway=gateway, pairs=mark, labels=labels))
        if self._may_lose_machines(release):
            exchanges = self._rescues.count(release, exchanges, seconds, after=after)
        look = Look(
            seconds=seconds,
            hour=mark // _HOUR,
            requests=Requests.of(exchanges),
            pairs=ScorePairs.of(pairs.pairs),
            losses=LossPairs.of(graded),
            own=self._own.measure(release.policy.metrics, pairs.rows),
        )
        return look, after

    def _turn_to(self, release: Release) -> None:
        if self._release != release.id:
            self._release, self._shape, self._misshapen = release.id, None, 0
            self._lives, self._recent = ReadinessTimer(self._steady), _Recent(self._source, self._steady)
            self._rescues = RescuedRequests(self._steady)

    def _may_lose_machines(self, release: Release) -> bool:
        """Whether a server may be gone with its machine, of which the controller's is none, and supervisors report."""
        return self._has_machines and not is_external(release)

    def _ready(self, release: Release) -> dict[str, bool]:
        """By arm, whether the gateway finds a server of it ready; empty while the gateway does not answer."""
        try:
            health = self._traffic.health(release.model)
        except CumulantError as error:
            self._report(f"the gateway does not report its servers' health: {error.message}")
            return {}
        return {
            arm: any(server.ready for server in health if server.arm == arm)
            for arm in {server.arm for server in health}
        }

    def _arm_health(
        self,
        release: Release,
        arm: Arm,
        servers: dict[str, ServerStatus],
        ready: bool | None,
        recent: Requests,
    ) -> ArmHealth:
        if ready is None:  # what the supervisor says, where the gateway does not
            reports = [servers[url].ready for url in arm.endpoints if url in servers and servers[url].ready is not None]
            ready = any(reports) if reports else None
        requests, failures = count_failures(recent, arm.name)
        return ArmHealth(
            not_ready=self._lives.not_ready(f"{release.id} {arm.name}", ready=ready),
            restarts=count_restarts(arm, servers),
            requests=requests,
            failures=failures,
        )

    def _other_shape(self, release: Release) -> int:
        """1 where the candidate says that it answers with other outputs than the champion says; else 0."""
        if self._shape is None:
            self._shape = self._fetch_shape(release.champion, release)
        other = None if self._shape is None else self._fetch_shape(release.candidate, release)
        return int(other is not None and other != self._shape)

    def _fetch_shape(self, arm: Arm, release: Release) -> OutputShape | None:
        token = None if is_external(release) else self._token  # it is not for servers of others
        return fetch_output_shape(arm, release.model, self._report, token=token)

    def _exchanges(self, release: Release, after: str) -> tuple[list[Exchange], str]:
        """Those that count. The log may hold weeks from before the release, which no memory need."""
        counted: list[Exchange] = []
        while len(counted) < _MOST:
            page, after = self._source.exchanges(after, limit=_PAGE)
            counted += counting(page, model=release.model, revision=release.revision)
            if len(page) < _PAGE:
                break
        return counted, after

    def _read_mirrored(self, release: Release, mark: int) -> tuple[MirroredEvidence, int]:
        until = to_micros(self._clock.now()) - self._settle
        # The first look, or one after a jump of the clock, begins here: the requests between cannot be assigned.
        if not mark or abs(until - mark) > _JUMP:
            return MirroredEvidence(), until
        called = any(metric.call for metric in release.policy.metrics.values())
        if until <= mark or not (release.mirror or called):
            return MirroredEvidence(), max(mark, until)
        try:
            return read_mirrored(self._log, release, after=mark, until=until, arms=called), until
        except (CumulantError, OSError) as error:
            self._report(f"the prediction log cannot be read, so no pair is counted: {error}")
            return MirroredEvidence(), mark

    def _read_losses(self, release: Release, after: str) -> tuple[Sequence[LossPair], str]:
        try:
            return self._labels.read_losses(release, after)
        except CumulantError as error:
            self._report(f"labels cannot be read, so none is counted: {error.message}")
            return (), after


class _Recent:
    """Exchanges of the last seconds, read once each from where the row's cursor stood when the watching began."""

    def __init__(self, source: ExchangeSource, steady: Callable[[], float]) -> None:
        self._source, self._steady = source, steady
        self._cursor: str | None = None
        self._timed: deque[tuple[float, Exchange]] = deque(maxlen=_PAGE)

    def exchanges(self, release: Release) -> list[Exchange]:
        """Those that the present weights assigned."""
        if self._cursor is None:
            self._cursor = Cursor.of(release.cursor).gateway
        more = True
        while more:
            page, self._cursor = self._source.exchanges(self._cursor, limit=_PAGE)
            more = len(page) >= _PAGE
            self._keep(page)
        now = self._steady()
        while self._timed and self._timed[0][0] <= now - RECENT:
            self._timed.popleft()
        return counting((exchange for _, exchange in self._timed), model=release.model, revision=release.revision)

    def _keep(self, page: Sequence[Exchange]) -> None:
        """What waited in the log while nobody read it is not of the last seconds, by the clock of its own gateway."""
        now, newest = self._steady(), dict[str, int]()
        for exchange in page:
            newest[exchange.gateway] = max(newest.get(exchange.gateway, 0), exchange.time)
        recent = RECENT * _SECOND
        self._timed.extend((now, exchange) for exchange in page if exchange.time > newest[exchange.gateway] - recent)


def fetch_output_shape(
    arm: Arm, model: str, report: Callable[[str], object], *, token: str | None = None
) -> OutputShape | None:
    """Names and datatypes of the outputs that a server of the arm declares; None where it declares none.

    report: is told in a sentence where a server does not tell them.
    """

    def refused(status: int) -> None:
        report(f"outputs are not compared: the {arm.name} does not show them to the controller (HTTP {status})")

    for url in arm.endpoints:
        address = f"{url.rstrip('/')}/v2/models/{quote(model, safe='')}"
        card = fetch_json(address, seconds=_PROBE_SECONDS, authority=arm.authority, token=token, refused=refused)
        outputs = card.get("outputs") if isinstance(card, dict) else None
        if isinstance(outputs, list) and all(isinstance(output, dict) for output in outputs):
            return frozenset((str(output.get("name")), str(output.get("datatype"))) for output in outputs)
    return None


def _arms(release: Release) -> tuple[Arm, Arm]:
    return release.champion, release.candidate


class ServerStatus(msgspec.Struct, frozen=True):
    """One server by the supervisor's file; `restarts` are those of the last minute."""

    url: str = ""
    ready: bool | None = None
    restarts: int = 0


def read_server_status(stack: Path) -> dict[str, ServerStatus]:
    """By URL, what the file in the folder `stack` says; nothing where it is missing, half written or strange."""
    document: object = read_json(stack / STATUS, object)
    rows = document.get("children", []) if isinstance(document, dict) else document
    entries = [_entry(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {entry.url: entry for entry in entries if entry.url}


def _entry(row: Mapping[str, object]) -> ServerStatus:
    url, ready, restarts = row.get("url"), row.get("ready"), row.get("restarts")
    return ServerStatus(
        url=url.rstrip("/") if isinstance(url, str) else "",
        ready=ready if isinstance(ready, bool) else None,
        restarts=restarts if isinstance(restarts, int) else 0,
    )


class ReadinessTimer:
    """Time without a ready server, by a steady clock.

    An arm that has not been ready yet in this release is starting, and gets `grace` seconds for it.
    """

    def __init__(self, steady: Callable[[], float], *, grace: float = 60.0) -> None:
        self._steady, self._grace = steady, grace
        self._since: dict[str, float] = {}
        self._ready_once: set[str] = set()

    def not_ready(self, key: str, *, ready: bool | None) -> float:
        """Seconds for which the arm has not been ready; 0 where `ready` is unknown (None)."""
        now = self._steady()
        if ready is None or ready:
            self._since.pop(key, None)
            if ready:
                self._ready_once.add(key)
            return 0.0
        lasted = now - self._since.setdefault(key, now)
        return lasted if key in self._ready_once else max(0.0, lasted - self._grace)


def count_restarts(arm: Arm, servers: Mapping[str, ServerStatus]) -> int:
    """How often the arm's servers were started again in the last minute."""
    return sum(servers[url.rstrip("/")].restarts for url in arm.endpoints if url.rstrip("/") in servers)
