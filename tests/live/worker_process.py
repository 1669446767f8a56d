"""A worker of a machine, with a short lease: `worker_process.py FOLDER ENVIRONMENT LEASE_SECONDS`."""

import sys
import threading

from cumulant.flows.worker.run_worker import machine_offer, run_worker
from cumulant.project.file.loading import load

folder, environment, lease = sys.argv[1:]
with load(folder, environment=environment) as project:
    runs = run_worker(
        project,
        principal=project.principal(),
        offer=machine_offer(region="eu"),
        stop=threading.Event(),
        lease=float(lease),
    )
    for run in runs:
        print(run.name, run.ending, run.attempt, flush=True)
