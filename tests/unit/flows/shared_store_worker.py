"""A process that fills or cleans several projects at once, a thread each, for tests of a store that they share.

python shared_store_worker.py fill|clean ENVIRONMENT FOLDER...
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cumulant.flows.features.feature_table import featurize
from cumulant.flows.maintenance.cleanup import clean
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load

ME = Principal("tester")
STRAY = "models/stray"


def fill(folder: Path, environment: str) -> None:
    """Features, and an object and a table that nothing needs; the object has the same name in every project."""
    with load(folder, environment=environment) as project:
        featurize(project, principal=ME)
        project.objects().put(STRAY, folder / "features.py")
        project.objects().put("kept/by-none-of-the-rules", folder / "features.py")
        project.tables().write("reproductions/stray", project.tables().scan(project.tables().keys("features/")[0]))


def clean_up(folder: Path, environment: str) -> None:
    with load(folder, environment=environment) as project:
        removed = {item.key for item in clean(project, principal=ME, dry_run=False)}
        assert removed == {STRAY, "reproductions/stray"}, (project.scope, removed)


def main(action: str, environment: str, *folders: str) -> None:
    act = {"fill": fill, "clean": clean_up}[action]
    # The first one alone: msgspec 0.22 crashes where threads decode a type at once that none has decoded before.
    first, *others = map(Path, folders)
    act(first, environment)
    with ThreadPoolExecutor(len(others)) as pool:
        for done in [pool.submit(act, folder, environment) for folder in others]:
            done.result()


if __name__ == "__main__":
    main(*sys.argv[1:])
