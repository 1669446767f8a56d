"""`cumulant slo`: what the log of a gateway says of the objectives, and rules that Prometheus takes and evaluates."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

import pytest
from ruamel.yaml import YAML

from cumulant.cli.app import run
from cumulant.core.errors import CumulantError, UsageError
from cumulant.core.traffic import Exchange
from cumulant.drivers.envoy.exchanges import ExchangeWriter
from cumulant.flows.observe.objective_alerts import evaluate_objectives
from cumulant.flows.observe.slo import declared_objectives, objective_rules, show_objectives
from cumulant.flows.observe.slo_rules import SOURCES, rules_text
from cumulant.project.file.loading import load

SLO = "serving: {slo: {latency: {within: 250ms}}}\n"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def loaded(folder, more=SLO):
    (folder / "cumulant.yaml").write_text(f"version: 1\nmodel: {{name: late}}\n{more}")
    return load(folder)


def test_the_state_comes_from_the_gateways_log(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with loaded(tmp_path) as project:
        folder = project.state / "gateway" / "exchanges"
        folder.mkdir(parents=True)
        writer, now = ExchangeWriter(folder), int(time.time() * 1e6)
        common = {"model": "late", "assigned": "champion", "served": "champion", "duration_us": 1000}
        statuses = [503] * 20 + [200] * 180
        writer.write([Exchange(request="r", time=now - 60_000_000, status=status, **common) for status in statuses])
        writer.close()
        view = show_objectives(project, principal=project.principal())
    available, fast = view.objectives
    assert (available.requests, available.bad, available.firing) == (200, 20, "page")
    assert available.since is not None
    assert view.hold == "the error budget of availability burns 100 times as fast as it may in 1h and still in 5m"
    assert (fast.requests, fast.bad, fast.firing) == (200, 0, None)
    assert run(["slo", "show", "--project", str(tmp_path), "--json"]) == 1
    first = json.loads(capsys.readouterr().out)["objectives"][0]
    assert (first["bad"], first["target"], first["window"], first["burn"][0]["short"]) == (20, 0.999, "30d", "5m")
    assert run(["slo", "show", "--project", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "99.9% in 30d" in shown
    assert "page" in shown
    assert "ends below" not in shown
    with load(tmp_path) as project:  # from now on the alert fires, which ends below 80% of its limit
        evaluate_objectives(project, principal=project.principal())
    assert run(["slo", "show", "--project", str(tmp_path)]) == 1
    shown += capsys.readouterr().out
    assert "page, ends below 11.5" in shown
    assert "no release begins now: the error budget of availability burns 100 times" in shown
    assert run(["slo", "rules", "--project", str(tmp_path)]) == 0
    assert YAML(typ="safe").load(capsys.readouterr().out)["groups"]


def test_a_spent_budget_that_pages_no_more_ends_with_exit_code_1_where_it_holds_releases(tmp_path, capsys):
    slo, past = "serving: {slo: {objective: 99.9%}}\n", int((time.time() - 5 * 86400) * 1e6)
    with loaded(tmp_path, slo) as project:
        folder = project.state / "gateway" / "exchanges"
        folder.mkdir(parents=True)
        common = {"model": "late", "assigned": "champion", "served": "champion", "duration_us": 1000}
        writer, statuses = ExchangeWriter(folder), [503] * 5 + [200] * 95
        writer.write([Exchange(request="r", time=past, status=status, **common) for status in statuses])
        writer.close()
    assert run(["slo", "show", "--project", str(tmp_path), "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["objectives"][0]["spent"]
    assert not any(burn["firing"] for burn in shown["objectives"][0]["burn"])
    assert "5 of 100 requests in 30d were bad" in shown["hold"]
    loaded(tmp_path, f"{slo}release: {{slo: page}}\n").close()
    assert run(["slo", "show", "--project", str(tmp_path), "--json"]) == 0


def test_a_project_without_objectives_is_told_how_to_declare_one(tmp_path):
    with loaded(tmp_path, "") as project, pytest.raises(UsageError, match="declares no objectives"):
        declared_objectives(project)


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ("{slo: {objective: 100%}}", "below 100%"),
        ("{slo: {objective: lots}}", "objective"),
        ("{slo: {window: 0d}}", "may not be 0"),
        ("{slo: {latency: {within: 30ms}}}", "no bound of the metrics"),
        ("{slo: {fewest: 0}}", "fewest"),
    ],
)
def test_what_means_nothing_is_refused_with_its_line(tmp_path, section, text):
    with pytest.raises(CumulantError) as caught:
        loaded(tmp_path, f"serving: {section}\n")
    assert text in caught.value.full_text
    assert "cumulant.yaml:3" in caught.value.full_text


@pytest.mark.parametrize("objective", ["0.999", "'0.999'", "99.9%"])
def test_an_objective_is_a_share_or_a_number(tmp_path, objective):
    latency = f"latency: {{within: 250ms, objective: {objective}}}"
    with loaded(tmp_path, f"serving: {{slo: {{objective: {objective}, {latency}}}}}\n") as project:
        assert [each.target for each in declared_objectives(project)] == [0.999, 0.999]


@pytest.mark.parametrize(
    "selector",
    [
        'environment="prod',
        "environment=prod",
        '{environment="prod"}',
        'environment="prod"} or vector(1) or x{a="b"',
        'a="b",,c="d"',
        'a="b" c="d"',
        '9="b"',
    ],
)
def test_a_selector_that_is_none_is_refused_with_an_example(tmp_path, selector):
    with loaded(tmp_path) as project, pytest.raises(UsageError, match="no list of label matchers") as caught:
        objective_rules(project, principal=project.principal(), selector=selector)
    assert 'environment="prod",region=~"eu-.*"' in caught.value.full_text


@needs_promtool
def test_prometheus_takes_every_selector_that_is_accepted(tmp_path):
    selector = r"""environment="prod", region=~"eu-.*",zone!='a\'b',path!~"\"x\\\\y" """
    with loaded(tmp_path) as project:
        (tmp_path / "rules.yaml").write_text(objective_rules(project, principal=project.principal(), selector=selector))
    subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yaml"], check=True, timeout=60, capture_output=True)


def test_names_are_those_of_sloth(tmp_path):
    with loaded(tmp_path) as project:
        text = objective_rules(project, principal=project.principal())
    groups = YAML(typ="safe").load(text)["groups"]
    names = {rule.get("record") for group in groups for rule in group["rules"]}
    assert names >= {
        *(f"slo:sli_error:ratio_rate{window}" for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")),
        "slo:objective:ratio",
        "slo:error_budget:ratio",
        "slo:time_period:days",
        "slo:current_burn_rate:ratio",
        "slo:period_burn_rate:ratio",
        "slo:period_error_budget_remaining:ratio",
        "sloth_slo_info",
    }
    for group in groups:
        for rule in group["rules"]:
            assert {"sloth_id", "sloth_service", "sloth_slo"} <= rule["labels"].keys()


@needs_promtool
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("window", ["30d", "7d"])
def test_prometheus_takes_the_rules(tmp_path, source, window):
    with loaded(tmp_path, SLO.replace("{latency", f"{{window: {window}, latency")) as project:
        text = rules_text("late", "late", project.policies.objectives, source=source, selector='environment="prod"')
    (tmp_path / "rules.yaml").write_text(text)
    checked = subprocess.run(
        ["promtool", "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


COMPLETED = 'envoy_vhost_vcluster_upstream_rq_completed{envoy_virtual_cluster="late"}'
ERRORS = 'envoy_vhost_vcluster_upstream_rq_xx{envoy_virtual_cluster="late",envoy_response_code_class="5"}'
COUNT = 'envoy_vhost_vcluster_upstream_rq_time_count{envoy_virtual_cluster="late"}'
BUCKET = 'envoy_vhost_vcluster_upstream_rq_time_bucket{envoy_virtual_cluster="late",le="250"}'
PAGE, TICKET = ("page", "critical"), ("ticket", "warning")
#: series by minute; at which moment; alerts by objective
CASES = {
    "fast burn": ({COMPLETED: "0+600x90", ERRORS: "0+30x90"}, "75m", {"availability": [PAGE, TICKET]}),
    "slow burn": ({COMPLETED: "0+60x4500", ERRORS: "0+0.12x4500"}, "74h", {"availability": [TICKET]}),
    "sound": ({COMPLETED: "0+600x90", ERRORS: "0+0.3x90"}, "75m", {}),
    "no traffic": ({COMPLETED: "5x90", ERRORS: "5x90"}, "75m", {}),
    "few requests": ({COMPLETED: "0+1x90", ERRORS: "0+1x90"}, "75m", {}),
    "no error yet": ({COMPLETED: "0+600x90"}, "75m", {}),
    "a reset gives no burn": ({COMPLETED: "0+600x40 0+600x50", ERRORS: "500+0x40 0+0x50"}, "75m", {}),
    "burning over a reset": (
        {COMPLETED: "0+600x40 0+600x50", ERRORS: "0+30x40 0+30x50"},
        "75m",
        {"availability": [PAGE, TICKET]},
    ),
    "over for half an hour": ({COMPLETED: "0+600x90", ERRORS: "0+30x60 1800+0x30"}, "89m", {"availability": [TICKET]}),
    "slow answers": ({COUNT: "0+600x90", BUCKET: "0+400x90"}, "75m", {"latency": [PAGE, TICKET]}),
    "answers in time": ({COUNT: "0+600x90", BUCKET: "0+599x90"}, "75m", {}),
}


@pytest.mark.slow
@needs_promtool
def test_prometheus_evaluates_the_alerts(tmp_path):
    with loaded(tmp_path) as project:
        text = objective_rules(project, principal=project.principal())
    (tmp_path / "rules.yaml").write_text(text)
    # Without it promtool takes the groups in any order, so that alerts may see what was recorded an hour before.
    order = [group["name"] for group in YAML(typ="safe").load(text)["groups"]]
    # Each evaluation costs a millisecond and more, and three days have 4,440 minutes.
    files = {"1m.yaml": ("1m", [name for name in CASES if name != "slow burn"]), "1h.yaml": ("1h", ["slow burn"])}
    for file, (interval, names) in files.items():
        tests = [_case(name, *CASES[name]) for name in names]
        with (tmp_path / file).open("w") as stream:
            settings = {"rule_files": ["rules.yaml"], "evaluation_interval": interval, "group_eval_order": order}
            YAML().dump({**settings, "tests": tests}, stream)
    tested = subprocess.run(
        ["promtool", "test", "rules", *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def _case(name, series, at, expected):
    alerts = []
    for sli in ("availability", "latency"):
        labels = {"sloth_id": f"late-{sli}", "sloth_service": "late", "sloth_slo": sli, "model": "late"}
        alerts.append(
            {
                "eval_time": at,
                "alertname": f"Cumulant{sli.capitalize()}Burn",
                "exp_alerts": [
                    {
                        "exp_labels": {**labels, "sloth_severity": severity, "severity": level},
                        "exp_annotations": {
                            "summary": f"late: the error budget of {sli} burns too fast",
                            "description": "late misses its objective "
                            f"({'99.9' if sli == 'availability' else '99'}% in 30d): see `cumulant slo show`.",
                        },
                    }
                    for severity, level in expected.get(sli, [])
                ],
            }
        )
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "alert_rule_test": alerts,
    }
