"""A key is repaired only where servers of the model read the state that is repaired."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from cumulant.core.errors import RefusedError
from cumulant.flows.serving.services import note_use
from cumulant.flows.serving.stored_keys import check_served


def test_a_server_of_another_state_of_the_model_stands_in_the_way(tmp_path):
    project, folder = SimpleNamespace(state=tmp_path), tmp_path / "serving" / "m-1"
    check_served(project, folder, "state_now")
    note_use(tmp_path / "uses", os.getpid(), folder=str(folder), table="state_now")
    note_use(tmp_path / "uses", os.getpid(), folder=str(tmp_path / "serving" / "m-2"), table="state_other")
    check_served(project, folder, "state_now")
    note_use(tmp_path / "uses", os.getpid(), folder=str(folder), table="state_before")
    with pytest.raises(RefusedError, match="a server reads the state state_before, which was made from earlier data"):
        check_served(project, folder, "state_now")
