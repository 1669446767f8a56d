"""Payments as they come: each to the topic and, at its moment, to the gateway, whether or not others are answered."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.demo.fraud.messages import DuePayment
from cumulant.demo.fraud.project import NAME, PARTITIONS, TOPIC

if TYPE_CHECKING:
    import cumulant
    from cumulant.api.results import ReplayClient

#: seconds between two writes to the topic
_WRITE = 0.05
_PATH = f"/v1/models/{NAME}/predict"
_JSON = {"content-type": "application/json"}


class PaymentDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a payment. `seconds`: from its moment to the answer. `hold`: for review.

    `error`: of a request that failed.
    """

    number: int
    seconds: float
    hold: bool = False
    probability: float | None = None
    error: str = ""


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A phase of traffic that has ended: `begun` and `ended` on the monotonic clock, without the last answers."""

    decisions: tuple[PaymentDecision, ...]
    begun: float
    ended: float
    #: payments that waited, since the same card had one under way
    waited: int

    @property
    def failed(self) -> list[PaymentDecision]:
        return [decision for decision in self.decisions if decision.error]

    @property
    def per_second(self) -> float:
        return round(len(self.decisions) / (self.ended - self.begun), 1)

    def milliseconds(self, share: float) -> float:
        """That quantile of all requests' times, those of failed ones too."""
        times = sorted(decision.seconds for decision in self.decisions)
        return round(times[min(len(times) - 1, int(share * len(times)))] * 1000, 1)


class _Answer(msgspec.Struct, frozen=True):
    prediction: int
    probability: float


def send_phase(
    project: cumulant.Project,
    client: ReplayClient,
    payments: Sequence[DuePayment],
    seconds: float,
    *,
    to_topic: bool = True,
) -> Phase:
    """Send the payments of a phase of so many seconds, and wait for the answers. `to_topic`: write each there, too.

    Raises:
        StorageError: the topic cannot be written.
        EngineUnavailableError: the broker does not answer.
    """
    return asyncio.run(_Traffic(project, client, to_topic=to_topic).run(payments, seconds))


class _Traffic:
    def __init__(self, project: cumulant.Project, client: ReplayClient, *, to_topic: bool) -> None:
        self._project, self._client, self._to_topic = project, client, to_topic
        self._cards: dict[int, asyncio.Task[None]] = {}
        self._unwritten: defaultdict[int, list[bytes]] = defaultdict(list)
        self._decisions: list[PaymentDecision] = []
        self._waited = 0
        self._over = False

    async def run(self, payments: Sequence[DuePayment], seconds: float) -> Phase:
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write())
            for payment in payments:
                if (early := begun + payment.due - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                if self._to_topic:
                    self._unwritten[payment.card % PARTITIONS].append(payment.message)
                before = self._cards.get(payment.card)
                self._cards[payment.card] = group.create_task(self._decide(payment, begun, before))
            await asyncio.sleep(max(0.0, begun + seconds - time.monotonic()))
            ended, self._over = time.monotonic(), True
        self._client.close()
        return Phase(decisions=tuple(self._decisions), begun=begun, ended=ended, waited=self._waited)

    async def _write(self) -> None:
        while not self._over or self._unwritten:
            batch, self._unwritten = self._unwritten, defaultdict(list)
            for partition, values in batch.items():
                await asyncio.to_thread(self._project.streams.produce, TOPIC, values, partition=partition)
            await asyncio.sleep(_WRITE)

    async def _decide(self, payment: DuePayment, begun: float, before: asyncio.Task[None] | None) -> None:
        """One card pays once at a time: its next payment waits for the answer to the one before."""
        if before is not None and not before.done():
            self._waited += 1
            await before
        answer = await self._client.ask("POST", _PATH, payment.request, _JSON)
        seconds = time.monotonic() - begun - payment.due
        fields: dict[str, Any] = {}
        if answer.status == 200:
            decision = msgspec.json.decode(answer.body, type=_Answer)
            fields = {"hold": decision.prediction == 1, "probability": decision.probability}
        else:
            fields = {"error": f"{answer.status or 'no answer'}: {answer.body[:200].decode(errors='replace')}"}
        self._decisions.append(PaymentDecision(number=payment.number, seconds=seconds, **fields))
