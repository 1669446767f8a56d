"""Each step of the package runs elsewhere, or there is a reason why it does not."""

from __future__ import annotations

import importlib
import inspect

import pytest
from step_sites import ELSEWHERE, IN_COMMAND, StepSite, find_step_sites

SITES = find_step_sites()


def test_every_step_is_declared_to_run_elsewhere_or_in_its_command():
    assert {site.step for site in SITES} == ELSEWHERE | set(IN_COMMAND)


@pytest.mark.parametrize("site", SITES, ids=lambda site: f"{site.step} ({site.module.rpartition('.')[2]})")
def test_a_step_that_runs_elsewhere_has_a_function_that_another_process_can_call(site: StepSite):
    if site.step in IN_COMMAND:
        assert site.function == ""
        return
    if site.function == "":  # its work calls another process itself
        assert [other.step for other in SITES if other.module == site.module and other.function] == [site.step]
        return
    function = getattr(importlib.import_module(site.module), site.function)
    assert (function.__module__, function.__qualname__) == (site.module, site.function), "importable by its name"
    context, *arguments = inspect.signature(function).parameters.values()
    assert context.name == "context"
    assert all(argument.kind is inspect.Parameter.KEYWORD_ONLY for argument in arguments)
