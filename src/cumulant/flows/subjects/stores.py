"""Every store of a project, with what it can do for a subject. A package that writes is named by one of them."""

from __future__ import annotations

from cumulant.flows.subjects import logs, online_state, records, snapshots, streams
from cumulant.flows.subjects.places import SubjectStore

#: in the order of an erasure: the state is made again from snapshots without the subject; labels and the gateway's
#: requests are found by predictions, which go after them
STORES: tuple[SubjectStore, ...] = (
    SubjectStore(
        name=logs.INBOX,
        packages=("serving",),
        holds="posted labels that wait, personal columns as hashes",
        find=logs.find_inbox,
        erase=logs.erase_inbox,
    ),
    SubjectStore(
        name=snapshots.MODELS,
        packages=("training", "flows/training", "flows/registry", "flows/packaging", "flows/reports"),
        holds="models, trials, plots and reports made from rows; examples without personal values",
        find=snapshots.find_models,
        erase=snapshots.keep_models,
    ),
    SubjectStore(
        name=snapshots.STORE,
        packages=("data", "flows/data"),
        holds="rows of sources, refused rows, and facts about both",
        find=snapshots.find_rows,
        erase=snapshots.erase_rows,
    ),
    SubjectStore(
        name=snapshots.DERIVED,
        packages=("flows/features",),
        holds="features of rows",
        find=snapshots.find_derived,
        erase=snapshots.erase_derived,
    ),
    SubjectStore(
        name=online_state.STORE,
        packages=("features",),
        holds="events by key, and posted rows",
        find=online_state.find_state,
        erase=online_state.erase_state,
    ),
    SubjectStore(
        name=streams.STORE,
        packages=("flows/features",),
        holds="rows of streams, which have no subject, and state of jobs; results without personal values",
        find=streams.find_streams,
        erase=streams.keep_streams,
    ),
    SubjectStore(
        name=snapshots.REFERENCES,
        packages=("flows/monitoring", "flows/review"),
        holds="rows of training that others are compared with, personal values as hashes",
        find=snapshots.find_references,
        erase=snapshots.keep_references,
    ),
    SubjectStore(
        name=logs.LABELS,
        packages=("outcomes",),
        holds="labels and joined rows, personal keys as hashes",
        find=logs.find_labels,
        erase=logs.erase_labels,
    ),
    SubjectStore(
        name=logs.EXCHANGES,
        packages=("flows/traffic",),
        holds="the gateway's requests: keys as hashes, names that callers gave; no paths and no rows",
        find=logs.find_exchanges,
        erase=logs.erase_exchanges,
    ),
    SubjectStore(
        name=logs.PREDICTIONS,
        packages=("serving",),
        holds="requests and answers, personal values as hashes",
        find=logs.find_predictions,
        erase=logs.erase_predictions,
    ),
    SubjectStore(
        name=records.CASES,
        packages=("review",),
        holds="references to predictions, with answers and notes",
        find=records.find_cases,
        erase=records.erase_cases,
    ),
    SubjectStore(
        name=records.EVENTS,
        packages=("flows/ledger",),
        holds="events of all packages: references and counts, no rows",
        find=records.find_events,
        erase=records.keep_events,
    ),
    SubjectStore(
        name=records.RESPONSES,
        packages=("server",),
        holds="for a day, responses to requests under a key: personal values as hashes",
        find=records.find_responses,
        erase=records.erase_responses,
    ),
    SubjectStore(
        name="runs, releases, alerts, jobs, hosts, steps, tokens and sessions",
        packages=(
            *("flows/maintenance", "flows/release", "flows/alerting", "flows/subjects"),
            *("flows/deployment", "flows/serving", "flows/worker", "flows/identities", "flows/governance"),
        ),
        holds="code, names of users, hashes of inputs, names, counts and moments; no rows and no keys",
    ),
)
