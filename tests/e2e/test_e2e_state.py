"""The state of a server outlives it, and new data carry over what was posted."""

from datetime import timedelta

import e2e_shop
import polars as pl
import pytest

from cumulant.core.progress import silent
from cumulant.features.online.online import OnlineFeatures
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.serving.serve import materialize
from cumulant.project.file.loading import load

ASKED = e2e_shop.START + timedelta(days=62)


@pytest.fixture
def folder(tmp_path):
    return e2e_shop.make(tmp_path / "shop", rows=400)


def state(folder):
    """What `serve` does before it starts the server."""
    with load(folder) as project:
        principal = project.principal()
        with open_run(project, "serve", principal=principal, progress=silent) as context:
            snapshots, _ = snapshots_of(context)
            plan = resolve_task(project, snapshots).plan
            table, _ = materialize(context, plan, snapshots, as_of=None)
        return plan, project.online(), table


def asked(plan, store, table):
    row = {"order": 10**6, "ordered": ASKED, "customer": "c001", "kind": "hat", "amount": 5.0, "express": True}
    found = OnlineFeatures(plan, store, table).vectors([row]).columns
    return {name: values[0] for name, values in found.items()}


def posted(number, hours, **fields):
    ordered = ASKED - timedelta(hours=hours)
    return {
        "order": number,
        "ordered": ordered,
        "customer": "c001",
        "kind": "hat",
        "amount": 7.0,
        "express": True,
        **fields,
    }


def test_a_state_is_kept_by_the_next_server_and_carried_over_to_new_data(folder):
    plan, store, table = state(folder)
    before = asked(plan, store, table)
    rows = [posted(10_000 + i, 80 + i, returned=i % 2 == 0) for i in range(6)]
    assert OnlineFeatures(plan, store, table).advance("orders", rows).accepted == 6
    after = asked(plan, store, table)
    assert after["customer_n_21d"] == before["customer_n_21d"] + 6
    assert after["kind_back_7d"] != before["kind_back_7d"]

    _, store, again = state(folder)
    assert again == table
    assert asked(plan, store, table) == after

    # half of what was posted has come with the data
    stored = pl.read_parquet(folder / "data" / "orders" / "b.parquet")
    new = pl.DataFrame(rows[:3]).select(stored.columns).cast(dict(stored.schema))
    new.write_parquet(folder / "data" / "orders" / "c.parquet")
    _, store, newer = state(folder)
    assert newer != table
    assert asked(plan, store, newer) == after
    assert OnlineFeatures(plan, store, newer).advance("orders", rows).duplicates == 6
