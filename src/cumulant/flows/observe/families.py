"""The metrics of a project, which the controller and the API publish; servers have their own."""

from __future__ import annotations

from cumulant.core.prometheus import Family

#: features of a model that have series, those with the greatest effect; bounds the number of series
MOST_FEATURES = 100
_PROJECT = ("project", "environment")


def _gauge(text: str, *labels: str) -> Family:
    return Family("gauge", text, (*_PROJECT, *labels))


def _counter(text: str, *labels: str) -> Family:
    return Family("counter", text, (*_PROJECT, *labels))


FAMILIES = {
    "cumulant_alerts_firing": _gauge("Alerts that fire.", "level"),
    "cumulant_alerts_active": _gauge("Alerts that fire or are pending, by rule.", "model", "rule", "level"),
    "cumulant_messages_waiting": _gauge("Messages that wait for a receiver.", "receiver"),
    "cumulant_messages_refused": _gauge("Messages that a receiver refuses, while it may take others.", "receiver"),
    "cumulant_receiver_failures": _gauge("Failures of a receiver in a row.", "receiver"),
    "cumulant_drift_effect": _gauge(
        "Effect of the change of a column in the newest window, from 0 to 1, less the expected sampling noise.",
        "model",
        "feature",
    ),
    "cumulant_drift_alarming": _gauge(
        "1 where the change of a column is significant and large enough to matter, else 0.", "model", "feature"
    ),
    "cumulant_drift_missing_ratio": _gauge("Share of missing values in the newest window.", "model", "feature"),
    "cumulant_drift_features": _gauge("Compared columns; at most 100 have series of their own.", "model"),
    "cumulant_drift_evaluated_timestamp_seconds": _gauge(
        "When drift was last found to have changed, since 1970.", "model"
    ),
    "cumulant_label_due_rows": _gauge("Rows of the newest evaluated windows, whose labels are due.", "model"),
    "cumulant_label_arrived_rows": _gauge("Those of them that had a label.", "model"),
    "cumulant_label_maturity_ratio": _gauge("Share of the due labels that came.", "model"),
    "cumulant_model_loss": _gauge(
        "Mean loss of a row in the newest window that has one: measured, estimated, or refit (of retrained models).",
        "model",
        "version",
        "kind",
    ),
    "cumulant_model_harm": _gauge("1 where labels show that the model loses more than it should, else 0.", "model"),
    "cumulant_monitoring_until_timestamp_seconds": _gauge("Up to when windows are evaluated, since 1970.", "model"),
    "cumulant_data_accepted_timestamp_seconds": _gauge(
        "When the newest snapshot of a source was accepted, since 1970.", "source"
    ),
    "cumulant_data_newest_timestamp_seconds": _gauge(
        "The newest event time in the newest snapshot of a source, since 1970.", "source"
    ),
    "cumulant_data_quarantined_ratio": _gauge("Share of a snapshot's rows that are in quarantine.", "source"),
    "cumulant_data_refused": _gauge("1 where the newest rows of a source were refused, else 0.", "source"),
    "cumulant_ingest_messages_total": _counter("Messages of a stream that were ingested.", "source"),
    "cumulant_ingest_rows_total": _counter("Those of them that became rows.", "source"),
    "cumulant_ingest_refused_total": _counter(
        "Those that were refused, by the rule that they break; the 50 rules with the most.", "source", "rule"
    ),
    "cumulant_ingest_batches_total": _counter("Batches of a stream that were committed.", "source"),
    "cumulant_ingest_rebalances_total": _counter(
        "Changes of which process reads which partitions of a stream.", "source"
    ),
    "cumulant_ingest_committed_timestamp_seconds": _gauge(
        "When the newest batch of a stream was committed, since 1970.", "source"
    ),
    "cumulant_ingest_consumers": _gauge("Processes that ingest a stream.", "source"),
    "cumulant_ingest_reported_timestamp_seconds": _gauge(
        "When one of them last reported, since 1970; without them there is none.", "source"
    ),
    "cumulant_ingest_lag_messages": _gauge("Messages of a stream that are not committed yet.", "source"),
    "cumulant_ingest_lag_seconds": _gauge(
        "For how long the oldest of them has waited, as far as a process has seen it; 0 where none waits.", "source"
    ),
    "cumulant_online_state_filled_timestamp_seconds": _gauge(
        "When a table of the online store was filled from snapshots, since 1970.", "table"
    ),
    "cumulant_online_newest_timestamp_seconds": _gauge(
        "The latest event time of a source's rows in a table of the online store, since 1970.", "table", "source"
    ),
    "cumulant_online_freshness_objective_seconds": _gauge(
        "How old the newest stored event of a source may be, by its `freshness`.", "source"
    ),
    "cumulant_feature_mismatch_ratio": _gauge(
        "Share of the served values of a feature that the history does not give, by the last verification.", "feature"
    ),
    "cumulant_feature_verified_rows": _gauge("Served rows that it compared.", "feature"),
    "cumulant_review_cases": _gauge("Cases of the review queue that wait.", "model"),
    "cumulant_review_overdue_cases": _gauge("Waiting cases whose deadline has passed.", "model"),
    "cumulant_review_oldest_timestamp_seconds": _gauge("When the oldest waiting case was queued, since 1970.", "model"),
    "cumulant_job_begun_timestamp_seconds": _gauge("When a scheduled job last began, since 1970.", "job"),
    "cumulant_job_late_seconds": _gauge("For how long a job of `cumulant tick` has been due.", "job"),
    "cumulant_steps": _gauge(
        "Steps that wait for a worker, and those that workers run (`compute: worker://`).", "status"
    ),
    "cumulant_steps_oldest_timestamp_seconds": _gauge("When the oldest waiting step was queued, since 1970."),
    "cumulant_release_info": _gauge("1 for the newest release.", "model", "release", "champion", "candidate"),
    "cumulant_release_status": _gauge("1 for the status of the newest release, 0 for the others.", "model", "status"),
    "cumulant_release_step": _gauge("The step of the newest release, from 1.", "model"),
    "cumulant_release_steps": _gauge("How many steps it has.", "model"),
    "cumulant_release_weight_ratio": _gauge("Share of the keys that its candidate has.", "model"),
    "cumulant_release_samples": _gauge("Requests of its step that counted.", "model", "arm"),
    "cumulant_release_verdict": _gauge(
        "1 for what the evidence of a metric shows: `harmful`, `worse`, `acceptable` or `undecided`.",
        "model",
        "metric",
        "verdict",
    ),
    "cumulant_release_slo_held": _gauge(
        "1 where an objective of the served model keeps the newest release from its next step, else 0.", "model"
    ),
    "cumulant_retraining_open": _gauge("1 while a requested training is under way, else 0.", "model"),
    "cumulant_process_ready": _gauge("1 where a process of `cumulant up` answers, else 0.", "process", "kind"),
    "cumulant_process_restarts": _gauge("Its restarts in the last minute.", "process", "kind"),
    "cumulant_serving_cost_per_hour": _gauge(
        "What the servers that answer cost in an hour, by `price` of the environment; without it there is none.",
        "model",
        "version",
        "currency",
    ),
    "cumulant_log_waiting_parts": _gauge("Parts of the prediction log that wait for their upload."),
    "cumulant_log_lag_seconds": _gauge("Age of the oldest of them; 0 where none waits."),
    "cumulant_events_total": _counter("Events of the chain."),
}
