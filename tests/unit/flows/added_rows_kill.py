"""A process that computes features and kills itself as their table is written.

python added_rows_kill.py FOLDER before|after
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from cumulant.drivers.local.tables import FileTables
from cumulant.flows.features.feature_table import featurize
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load

FEATURES_TABLES = "features/"


def main(folder: str, moment: str) -> None:
    write = FileTables.write

    def killed(self, key, frames, **options):  # type: ignore[no-untyped-def]
        if not key.startswith(FEATURES_TABLES):
            return write(self, key, frames, **options)
        if moment == "after":
            write(self, key, frames, **options)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    FileTables.write = killed  # type: ignore[method-assign]
    featurize(load(Path(folder)), principal=Principal("tester"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
