"""Alerts of Prometheus on the ingestion of streams."""

from __future__ import annotations

import io

from ruamel.yaml import YAML

#: seconds that the oldest waiting message may be behind, and that all processes of a source may be silent
BEHIND_SECONDS, SILENT_SECONDS = 600, 120


def ingest_rules_text() -> str:
    """A rule file: a source whose messages wait for too long, and one whose processes are gone without having ended."""
    rules = [
        {
            "alert": "CumulantIngestionBehind",
            "expr": f"cumulant_ingest_lag_seconds > {BEHIND_SECONDS}",
            "for": "5m",
            "labels": {"severity": "warning"},
            "annotations": {
                "summary": "Messages of {{ $labels.source }} wait for {{ $value | humanizeDuration }} to be ingested",
                "description": "See `cumulant ingest status`; start more processes, up to one a partition.",
            },
        },
        {
            "alert": "CumulantIngestionStopped",
            "expr": f"time() - cumulant_ingest_reported_timestamp_seconds > {SILENT_SECONDS}",
            "labels": {"severity": "critical"},
            "annotations": {
                "summary": "No process ingests {{ $labels.source }} since {{ $value | humanizeDuration }}",
                "description": "The last one did not end by itself: start `cumulant ingest run` again.",
            },
        },
    ]
    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style, yaml.width = False, 1_000_000
    yaml.dump({"groups": [{"name": "cumulant-ingest", "rules": rules}]}, text)
    return text.getvalue()
