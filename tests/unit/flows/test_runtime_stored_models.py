"""A stored model is verified before an engine reads it: LightGBM ends the process at half a file."""

from __future__ import annotations

import pytest
from test_runtime_final_fit import make, visits

from cumulant.core.errors import IntegrityError
from cumulant.core.progress import silent
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.training.search_step import load_model, store_model
from cumulant.project.file.loading import load
from cumulant.training.model import constant


def test_a_stored_model_whose_files_are_others_is_not_loaded(tmp_path):
    with load(make(tmp_path / "shop", visits(10))) as project:
        who = project.principal()
        with open_run(project, "train", principal=who, progress=silent) as context:
            ref = store_model(context, constant([0.25], task="regression", classes=(), inputs=()))
        assert load_model(project, ref).card.trainer == "naive"
        with project.objects().open(ref.key) as folder:
            files = list(folder.iterdir())
        for file in files:
            whole = file.read_bytes()
            file.chmod(0o644)
            file.write_bytes(whole[: len(whole) // 2])
            with pytest.raises(IntegrityError, match=f"the stored model {ref.key} is damaged"):
                load_model(project, ref)
            file.write_bytes(whole)
        assert load_model(project, ref).card.trainer == "naive"
