"""Alerts and dashboard: promtool accepts them, they read what the agent exports, and they say what to do."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from charttool import contract, dashboard, helm, promtool
from charttool.paths import DOCS, FIXTURES, TESTS

METRICS = contract.metrics()
RULE = {"enabled": True}


def groups(**values) -> list[dict]:
    """The groups of the PrometheusRule that the chart renders."""
    rendered = helm.render({"prometheusRule": {**RULE, **values}})
    return helm.only(rendered, "PrometheusRule")["spec"]["groups"]


def alerts(**values) -> dict[str, dict]:
    """The alerts of that rule by name."""
    return {rule["alert"]: rule for group in groups(**values) for rule in group["rules"]}


def run_promtool_test(folder: Path, rules: list[dict]) -> None:
    """Runs promtool on the test file in the folder, with the rules beside it."""
    promtool.write_rules(rules, folder / "alerts.yaml")
    result = promtool.run("test", "rules", str(folder / "alerts_test.yaml"))
    assert result.returncode == 0, result.stdout + result.stderr


def test_alerts_fire_when_they_should(tmp_path: Path, with_promtool):
    shutil.copy(TESTS / "alerts_test.yaml", tmp_path)
    run_promtool_test(tmp_path, groups())


def test_every_alert_has_a_test_in_which_it_fires():
    tested = (TESTS / "alerts_test.yaml").read_text()
    assert all(f'alertname="{name}", alertstate="firing"' in tested for name in alerts())


def pages_as_series(kind: str = "", minutes: int = 10) -> list[dict]:
    """An agent's page before and after kills, as promtool's input: ten minutes of the one, then of the other."""
    before, after = (
        {
            (name, tuple(({"node": "node-1"} | labels).items())): value
            for name, labels, value in contract.series((FIXTURES / f"agent-{kind}{when}.txt").read_text())
        }
        for when in ("before", "after")
    )
    found = []
    for (name, labels), value in after.items():
        text = ", ".join(f'{key}="{inner}"' for key, inner in labels)
        first = before.get((name, labels), "_").replace("@NOW@", "0")
        last = value.replace("@NOW@", "600")
        found.append({"series": f"{name}{{{text}}}", "values": f"{first}x10 {last}x{minutes}"})
    return [*found, {"series": 'up{job="oom-watcher", node="node-1"}', "values": f"1x{minutes + 10}"}]


def fired(folder: Path, series: list[dict], expected: dict[str, list[str]]) -> None:
    """Which alerts fire at which time, on these series."""
    tests = [
        {
            "expr": 'ALERTS{alertstate="firing"}',
            "eval_time": time,
            "exp_samples": [{"labels": f"ALERTS{{alertstate=\"firing\", {labels}}}", "value": 1} for labels in alerts],
        }
        for time, alerts in expected.items()
    ]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": tests}
    (folder / "alerts_test.yaml").write_text(
        yaml.safe_dump({"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": [test]})
    )
    run_promtool_test(folder, groups())


NODE = 'node="node-1"'
KILL = 'alertname="OOMKill", severity="warning", {}'
ON_KILLS = [
    KILL.format('namespace="shop", workload="checkout", container="app"'),
    KILL.format('namespace="data", workload="postgres", container="postgres"'),
    f'alertname="OOMNodeOutOfMemory", severity="critical", {NODE}, scope="node"',
]
LOOPING = 'namespace="shop", workload="web", container="app"'
# Pods without an owner that anybody knew, and one that has no name.
LASTING = [
    f'alertname="OOMKillLoop", severity="critical", {LOOPING}',
    f'alertname="OOMWatcherSeriesRefused", severity="info", {NODE}',
    f'alertname="OOMWatcherUnnamedKills", severity="info", {NODE}, result="id"',
]
IN_TROUBLE = {
    "13m": [
        *LASTING,
        KILL.format(LOOPING),
        f'alertname="OOMWatcherLostEvents", severity="warning", {NODE}, stage="ring_buffer"',
        f'alertname="OOMWatcherLostEvents", severity="warning", {NODE}, stage="sink_metrics"',
        f'alertname="OOMWatcherMissedKills", severity="warning", {NODE}',
    ],
    "27m": [
        *LASTING,
        f'alertname="OOMWatcherNamesDegraded", severity="warning", {NODE}, reason="unreadable"',
        f'alertname="OOMWatcherDegraded", severity="info", {NODE}, hook="memory_max_write"',
        f'alertname="OOMWatcherDegraded", severity="info", {NODE}, hook="out_of_memory"',
    ],
}


def test_alerts_fire_on_what_an_agent_shows(tmp_path: Path, with_promtool):
    fired(tmp_path, pages_as_series(), {"13m": ON_KILLS})


def test_alerts_fire_on_what_an_agent_in_trouble_shows(tmp_path: Path, with_promtool):
    fired(tmp_path, pages_as_series("trouble-", 40), IN_TROUBLE)


def test_every_alert_fires_on_a_page_of_an_agent_but_those_without_one():
    on_pages = " ".join([*ON_KILLS, *IN_TROUBLE["13m"], *IN_TROUBLE["27m"]])
    assert set(alerts()) - set(re.findall(r'alertname="(\w+)"', on_pages)) == {"OOMWatcherDown", "OOMWatcherAbsent"}


def test_promtool_accepts_the_rules(tmp_path: Path, with_promtool):
    path = promtool.write_rules(groups(job="custom", alertLabels={"team": "platform"}), tmp_path / "rules.yaml")
    result = promtool.run("check", "rules", "--lint=all", "--lint-fatal", str(path))
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_says_what_to_do():
    runbook = (DOCS / "operations.md").read_text()
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"]["summary"] and len(rule["annotations"]["description"]) > 80, name
        assert rule["annotations"]["runbook_url"].endswith(f"operations.md#{name.lower()}")
        assert re.search(rf"^### {name}$", runbook, re.MULTILINE), f"docs/operations.md has no runbook for {name}"


def test_the_runbook_has_no_alert_that_does_not_exist():
    runbook = (DOCS / "operations.md").read_text()
    assert set(re.findall(r"^### (OOM\w+)$", runbook, re.MULTILINE)) == set(alerts())


def test_annotations_use_only_labels_that_the_alert_has():
    for name, rule in alerts().items():
        has = contract.labels_of(rule["expr"]) | (contract.TARGET_LABELS if "up{" in rule["expr"] else set())
        used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        assert used <= has, name


def test_values_reach_the_alerts():
    changed = alerts(
        disabled=["OOMWatcherDegraded"],
        severities={"OOMKill": "info"},
        alertLabels={"team": "platform"},
        job="custom",
        runbookUrl="https://example.com/runbook",
    )
    assert "OOMWatcherDegraded" not in changed and len(changed) == len(alerts()) - 1
    assert changed["OOMKill"]["labels"] == {"severity": "info", "team": "platform"}
    assert changed["OOMWatcherDown"]["expr"] == 'up{job="custom"} == 0'
    assert changed["OOMKill"]["annotations"]["runbook_url"] == "https://example.com/runbook#oomkill"


def test_the_alerts_job_follows_the_chart_name():
    rendered = helm.render({"prometheusRule": RULE, "podMonitor": {"enabled": True}, "nameOverride": "kills"})
    rules = [rule for group in helm.only(rendered, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    job_label = helm.only(rendered, "PodMonitor")["spec"]["jobLabel"]
    pod = helm.only(rendered, "DaemonSet")["spec"]["template"]["metadata"]["labels"]
    assert any(f'job="{pod[job_label]}"' in rule["expr"] for rule in rules)


def all_queries() -> dict[str, str]:
    """Every query of alerts and dashboard by a name for messages."""
    found = {f"alert {name}": rule["expr"] for name, rule in alerts().items()}
    return found | {f"dashboard {query.name}": query.expression for query in dashboard.queries()}


def test_promtool_parses_every_query(tmp_path: Path, with_promtool):
    assert promtool.parse_errors(all_queries(), tmp_path) == ""


def test_promtool_would_notice_a_broken_query(tmp_path: Path, with_promtool):
    assert promtool.parse_errors({"broken": "sum(rate(oom_kills_total[5m])"}, tmp_path) != ""


def test_a_workload_is_the_same_in_alerts_and_dashboard():
    told = {name: query for name, query in all_queries().items() if "workload" in query}
    assert set(told) == {"alert OOMKill", "alert OOMKillLoop", "dashboard Kills by workload (A)"}
    quoted = [re.findall(r'"([^"]*)"', query) for query in told.values()]
    patterns = {tuple(text for text in texts if "(" in text) for texts in quoted}
    assert len(patterns) == 1 and len(*patterns) == 3, patterns


@pytest.mark.parametrize("name", all_queries())
def test_queries_read_only_what_the_agent_exports(name: str):
    query = all_queries()[name]
    read = contract.names_in(query)
    assert read, "no metric found in the query"
    assert read <= set(METRICS) | set(contract.SCRAPE_METRICS)
    known = set().union(*(METRICS.get(metric, set()) for metric in read)) | contract.TARGET_LABELS | {"workload"}
    assert contract.labels_in(query) <= known


def test_the_dashboard_shows_every_metric_of_the_contract():
    read = set().union(*(contract.names_in(query.expression) for query in dashboard.queries()))
    assert set(METRICS) <= read


def test_variables_of_the_dashboard_are_metrics_and_labels_of_the_agent():
    for query in dashboard.variable_queries():
        metric, label = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", query).groups()
        assert label in METRICS[metric] | contract.TARGET_LABELS


def test_panels_do_not_overlap_and_have_titles_and_descriptions():
    taken: set[tuple[int, int]] = set()
    panels = dashboard.load()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"], panel["title"]


def test_the_fixture_pages_keep_the_contract():
    assert {file.name: contract.differences(file.read_text()) for file in FIXTURES.glob("agent-*.txt")} == {
        f"agent-{name}.txt": [] for name in ("before", "after", "trouble-before", "trouble-after")
    }


def test_the_fixture_pages_have_every_family_of_the_agent_and_no_other():
    stated = set(re.findall(r"^\| `(oom_\w+)` \|", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    for file in FIXTURES.glob("agent-*.txt"):
        page = file.read_text()
        suffixes = {"counter": "_total", "info": "_info", "gauge": "", "histogram": ""}
        declared = re.findall(r"^# TYPE (\S+) (\w+)", page, re.MULTILINE)
        assert {name + suffixes[kind] for name, kind in declared} == stated, "cargo xtask image --guest 6.1 --write-pages"


def test_a_page_that_breaks_the_contract_is_told():
    page = (
        (FIXTURES / "agent-after.txt")
        .read_text()
        .replace("scope=", "level=")
        .replace("oom_kills_per_node", "oom_node_kills")
    )
    told = contract.differences(page)
    assert any(line.startswith("oom_incidents_total has the labels") for line in told)
    assert "oom_kills_per_node_total is not declared by the agent" in told
