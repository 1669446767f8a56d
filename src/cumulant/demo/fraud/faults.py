"""What goes wrong with a topic and an online store, and what Cumulant makes of it."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.errors import StepFailedError
from cumulant.demo.fraud.messages import messages, without_outcomes
from cumulant.demo.fraud.outages import run_command
from cumulant.demo.fraud.project import NAME, SOURCE, TOPIC
from cumulant.demo.fraud.report import FaultReport, RebuildReport

if TYPE_CHECKING:
    import polars as pl

    import cumulant
    from cumulant.api.results import ReplayClient
    from cumulant.demo.fraud.ingestion import Ingestion

#: numbers of payments that nobody made
_FIRST_NUMBER = 900_000_000
#: seconds until an emptied store must answer again, on a machine that is busy
_LONGEST, _LOOK = 180.0, 0.2


def send_faults(
    project: cumulant.Project, ingestion: Ingestion, earlier: pl.DataFrame, moment: datetime
) -> list[FaultReport]:
    """Send messages that are no payments, others with a field that is new, and `earlier` payments a second time.

    Raises:
        StepFailedError: ingestion ended.
    """
    reports = []
    for fault, values in (*_bad_messages(moment), ("payments sent again", messages(without_outcomes(earlier)))):
        before = project.streams.status(SOURCE)[0]
        project.streams.produce(TOPIC, values)
        ingestion.await_features()
        after = project.streams.status(SOURCE)[0]
        refused = after.refused - before.refused
        reports.append(FaultReport(fault=fault, messages=len(values), refused=refused, rows=after.rows - before.rows))
    return reports


def _bad_messages(moment: datetime) -> list[tuple[str, list[bytes]]]:
    fields = {"TRANSACTION_ID": _FIRST_NUMBER, "TX_DATETIME": moment, "CUSTOMER_ID": 1, "TERMINAL_ID": 1}

    def payment(number: int, **changed: Any) -> bytes:
        return msgspec.json.encode({**fields, "TRANSACTION_ID": _FIRST_NUMBER + number, "TX_AMOUNT": 20.0, **changed})

    later = moment + timedelta(days=365 * 50)
    return [
        ("no JSON object", [b"\x00\x01poison", b"[1, 2]", b'{"TRANSACTION_ID": 1, "TX_AM']),
        ("an amount that no payment has", [payment(1, TX_AMOUNT=-5.0), payment(2, TX_AMOUNT="12,50 EUR")]),
        ("a field of another shape", [payment(3, TX_AMOUNT={"value": 20.0, "currency": "EUR"})]),
        ("a time without a zone", [payment(4, TX_DATETIME=moment.replace(tzinfo=None))]),
        ("a field that is new", [payment(5, CHANNEL="online", CUSTOMER_ID=None)]),
        ("a clock that is 50 years ahead", [payment(6, TX_DATETIME=later, CUSTOMER_ID=None)]),
    ]


def empty_store(project: cumulant.Project, client: ReplayClient, moment: datetime, restart: str) -> RebuildReport:
    """Remove all stored features while everything runs, and send requests until they are answered from them again.

    `restart`: the command that restarts the store's server without its data; else its tables are removed.

    Raises:
        StepFailedError: the command fails, or they do not come back.
    """
    if restart:
        run_command(restart)
    else:
        store = project.loaded.online()
        for table in store.tables():
            store.drop(table)
    # Without a key nothing is stored of it.
    body = msgspec.json.encode({"TX_DATETIME": moment, "CUSTOMER_ID": 1, "TERMINAL_ID": 1, "TX_AMOUNT": 20.0})
    return asyncio.run(_send_until_answered(client, body, restarted=bool(restart)))


async def _send_until_answered(client: ReplayClient, body: bytes, *, restarted: bool) -> RebuildReport:
    begun, requests, refused = time.monotonic(), 0, list[str]()
    try:
        while True:
            answer = await client.ask("POST", f"/v1/models/{NAME}/predict", body, {"content-type": "application/json"})
            requests, seconds = requests + 1, round(time.monotonic() - begun, 1)
            if answer.status != 200:
                refused.append(f"{answer.status or 'no answer'}: {answer.body[:300].decode(errors='replace')}")
            elif msgspec.json.decode(answer.body, type=dict[str, Any]).get("state_age") is not None:
                first = refused[0] if refused else ""
                return RebuildReport(
                    restarted=restarted, seconds=seconds, requests=requests, refused=len(refused), answer=first
                )
            if seconds > _LONGEST:
                raise StepFailedError(f"an emptied online store was not filled again: {refused[-1:]}")
            await asyncio.sleep(_LOOK)
    finally:
        client.close()
