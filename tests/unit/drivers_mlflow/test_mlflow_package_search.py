"""MLflow's search of all installed packages: left out in the threads that save a model, in no other, and only then."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from mlflow.utils import environment as _environment

from cumulant.drivers.mlflow.models import _without_warnings_of_packages

SECONDS = 30
environment: Any = _environment


@pytest.fixture
def searched(monkeypatch):
    """The requirements that MLflow's function was called with."""
    calls: list[list[str]] = []
    monkeypatch.setattr(environment, "warn_dependency_requirement_mismatches", calls.append)
    return calls


def search(name):
    environment.warn_dependency_requirement_mismatches([name])


def test_the_function_is_restored_by_the_last_thread_that_saves(searched):
    original = environment.warn_dependency_requirement_mismatches
    both, first_left = threading.Barrier(2), threading.Event()

    def first():
        with _without_warnings_of_packages():
            both.wait(SECONDS)
        first_left.set()

    def second():
        with _without_warnings_of_packages():
            both.wait(SECONDS)
            assert first_left.wait(SECONDS)
            search("saved")
        search("after")

    with ThreadPoolExecutor(2) as pool:
        for ended in [pool.submit(first), pool.submit(second)]:
            ended.result(SECONDS)
    assert searched == [["after"]]
    assert environment.warn_dependency_requirement_mismatches is original


def test_another_thread_searches_meanwhile(searched):
    with _without_warnings_of_packages(), ThreadPoolExecutor(1) as pool:
        search("saved")
        pool.submit(search, "of a notebook").result(SECONDS)
        with _without_warnings_of_packages():
            search("saved")
        search("saved")
    assert searched == [["of a notebook"]]


def test_what_another_program_put_there_meanwhile_stays(searched):
    other = lambda _: None  # noqa: E731
    with _without_warnings_of_packages():
        environment.warn_dependency_requirement_mismatches = other
    assert environment.warn_dependency_requirement_mismatches is other
