"""An online table that several machines see is kept while a process of any of them may serve from it."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from cumulant.core.events import Actor
from cumulant.flows.ledger.processes import Process, process_of
from cumulant.flows.serving.services import TABLE_USE, TableUse, share_table_use, shared_tables
from cumulant.project.file.loading import load


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: m}\n")
    with load(tmp_path) as loaded:
        yield loaded


def noted(project, process: Process, table: str) -> None:
    use = msgspec.to_builtins(TableUse(process=process, table=table))
    with project.journal().transaction(actor=Actor("service:test")) as transaction:
        transaction.put(TABLE_USE, table, use)


def test_a_table_is_kept_until_its_process_has_ended(project):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as server:
        share_table_use(project, server.pid, "state_1")
        share_table_use(project, os.getpid(), "state_2")
        assert shared_tables(project) == {"state_1", "state_2"}
        server.communicate(b"\n")
    assert shared_tables(project) == {"state_2"}
    share_table_use(project, os.getpid(), "state_3")
    assert shared_tables(project) == {"state_2", "state_3"}
    assert len(project.journal().rows(TABLE_USE)) == 2, "the one of the ended process is removed"


def test_processes_of_other_machines_count_and_those_before_a_restart_of_this_one_do_not(project):
    here = process_of(os.getpid())
    noted(project, Process("elsewhere:0a0a0a0a", 7, "1"), "state_1")
    noted(project, Process(f"{here.host.partition(':')[0]}:0a0a0a0a", here.pid, here.born), "state_2")
    assert shared_tables(project) == {"state_1"}
