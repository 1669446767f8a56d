"""The peer, in its own environment: Evidently's drift report with its defaults. `evidently_report.py BEFORE NOW`."""

from __future__ import annotations

import json
import os
import sys
import time

os.environ["DO_NOT_TRACK"] = "1"

if __name__ == "__main__":
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    before, now = (pd.read_parquet(path) for path in sys.argv[1:3])
    numbers = [name for name in before if name.startswith("n")]
    texts = [name for name in before if name.startswith("c")]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
    began, worked = time.perf_counter(), time.process_time()
    parts = [Dataset.from_pandas(frame, data_definition=definition) for frame in (now, before)]
    drifted = Report([DataDriftPreset()]).run(*parts).dict()["metrics"][0]["value"]["count"]
    took = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - worked}
    with open("/proc/self/status") as file:
        peak = int(next(line for line in file if line.startswith("VmHWM")).split()[1]) / 1024
    print(json.dumps({"what": "evidently", **took, "peak_mb": peak, "drifted": drifted}))
