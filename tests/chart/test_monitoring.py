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


def run_promtool_test(folder: Path, rules: list[dict], file: str = "alerts_test.yaml") -> None:
    """Runs promtool on the test file in the folder, with the rules beside it."""
    promtool.write_rules(rules, folder / "alerts.yaml")
    result = promtool.run("test", "rules", str(folder / file))
    assert result.returncode == 0, result.stdout + result.stderr


def test_alerts_fire_when_they_should(tmp_path: Path, with_promtool):
    shutil.copy(TESTS / "alerts_test.yaml", tmp_path)
    run_promtool_test(tmp_path, groups())


def test_alerts_say_what_a_person_should_read(tmp_path: Path, with_promtool):
    shutil.copy(TESTS / "alerts_text_test.yaml", tmp_path)
    # By default the link has the version.
    rules = groups(runbookUrl="https://github.com/oom-watcher/oom-watcher/blob/main/docs/operations.md")
    run_promtool_test(tmp_path, rules, "alerts_text_test.yaml")


def test_the_text_of_every_alert_is_tested():
    (test,) = yaml.safe_load((TESTS / "alerts_text_test.yaml").read_text())["tests"]
    told = {one["alertname"] for one in test["alert_rule_test"] if all(a["exp_annotations"] for a in one["exp_alerts"])}
    assert told == set(alerts())


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
    without = {"OOMWatcherDown", "OOMWatcherMissing", "OOMWatcherAbsent"}
    assert set(alerts()) - set(re.findall(r'alertname="(\w+)"', on_pages)) == without


# An agent's series of one container, scraped each half minute for an hour, and how many kills they show: values of
# oom_kills_total, and when the last kill was, in seconds.
SHOP = 'node="a", namespace="shop", pod="web-0", container="app"'
COURSES = {
    "a first kill, after zeros": ("0x20 1x99", "_x20 630x99", 1),
    "a first kill, of a series that was not there": ("_x20 1x99", "_x20 625x99", 1),
    "a series that is first seen at four": ("_x20 4x99", "_x20 625x99", 4),
    "kills at different times": ("0x20 1x20 3x20 4x58", "_x20 630x20 1260x20 1890x58", 4),
    "an agent that is started again in its place": ("_x20 5x20 0x20 1x58", "_x20 625x20 _x20 1890x58", 6),
    "the same without zeros, and silent for ten minutes": ("_x20 5x20 _x20 1x58", "_x20 625x20 _x20 1890x58", 6),
    "scrapes that fail around a kill": ("0x20 1x10 _x2 2x10 _x3 2x73", "_x20 630x10 _x2 960x10 _x3 960x73", 2),
    "a kill whose only scrape is followed by one that fails": ("0x21 1 stale 1x96", "_x21 650 stale 650x96", 1),
    "an old kill, unseen for twenty minutes": ("1x20 _x40 1x58", "60x20 _x40 60x58", 1),
    "a container without room for the time of its kill": ("_x20 1x99", "_x119", 1),
}


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("step", [60, 300])
def test_panels_show_each_kill_once(tmp_path: Path, with_promtool, course: str, step: int):
    kills, last, expected = COURSES[course]
    shown = dashboard.Shown(end=3600, seconds=3600, step=step)
    queries = {query.name: query for query in dashboard.queries(shown)}
    sums = {
        "Kills by namespace (A)": '{namespace="shop"}',
        "Kills by workload (A)": '{namespace="shop", workload="web"}',
        "Processes killed (A)": "{}",
        "Incidents (A)": "{}",
        "Top containers (A)": '{namespace="shop", pod="web-0", container="app"}',
        "Scope (A)": '{scope="container"}',
    }
    tests = [
        {
            "expr": f"sum_over_time(({query.expression})[1h:{step}s])" if query.stepped else query.expression,
            "eval_time": "1h",
            "exp_samples": [{"labels": labels, "value": expected}],
        }
        for name, labels in sums.items()
        for query in [queries[name]]
    ]
    series = [
        {"series": f"oom_kills_total{{{SHOP}}}", "values": kills},
        {"series": f'oom_incidents_total{{{SHOP}, scope="container"}}', "values": kills},
        {"series": f"oom_last_timestamp{{{SHOP}}}", "values": last},
    ]
    promtool_test(tmp_path, "30s", series, tests)


def test_panels_of_a_month_show_a_container_that_was_there_for_an_hour(tmp_path: Path, with_promtool):
    """The agent drops the series of a container that is gone before such a step ends."""
    shown = dashboard.Shown(end=86400, seconds=86400, step=7200)
    queries = {query.name: query for query in dashboard.queries(shown)}
    series = [
        {"series": f"oom_kills_total{{{SHOP}}}", "values": "_x250 1x130 _x2500"},
        {"series": f"oom_last_timestamp{{{SHOP}}}", "values": "_x250 7525x130 _x2500"},
    ]
    tests = [
        {"expr": expression, "eval_time": "1d", "exp_samples": [{"labels": labels, "value": 1}]}
        for expression, labels in [
            (f"sum_over_time(({queries['Kills by namespace (A)'].expression})[1d:2h])", '{namespace="shop"}'),
            (queries["Processes killed (A)"].expression, "{}"),
        ]
    ]
    promtool_test(tmp_path, "30s", series, tests)


# The same of a series of the agent itself, which has no time of a kill: when it was scraped, and what it counted.
OWN_COURSES = {
    "what an agent counts": ("1x119", "0x20 2x99", 2),
    "what an agent counted before its first scrape": ("_x20 1x99", "_x20 2x99", 2),
    "an agent that is started again in its place": ("1x119", "0x20 2x20 1x79", 3),
    "an agent that is not scraped for twenty minutes": ("1x20 _x40 1x59", "2x20 _x40 2x59", 2),
}


@pytest.mark.parametrize("course", OWN_COURSES)
def test_panels_of_the_watchers_show_each_event_once(tmp_path: Path, with_promtool, course: str):
    alive, values, expected = OWN_COURSES[course]
    shown = dashboard.Shown(end=3600, seconds=3600, step=60)
    (query,) = [query for query in dashboard.queries(shown) if query.name == "Lost events (A)"]
    target = 'job="oom-watcher", instance="10.0.0.1:8080", node="a"'
    series = [
        {"series": f'oom_watcher_build_info{{{target}, version="1", arch="x86_64"}}', "values": alive},
        {"series": f'oom_watcher_lost_events_total{{{target}, stage="decode"}}', "values": values},
    ]
    expression = f"sum_over_time(({query.expression})[1h:60s])"
    sample = {"labels": '{node="a", stage="decode"}', "value": expected}
    promtool_test(tmp_path, "30s", series, [{"expr": expression, "eval_time": "1h", "exp_samples": [sample]}])


FILLED = 'memory_type="anon"'


def test_what_filled_the_memory_is_that_of_the_last_kill_in_the_range(tmp_path: Path, with_promtool):
    shown = dashboard.Shown(end=7200, seconds=3600)
    queries = {query.name: query.expression for query in dashboard.queries(shown)}
    kills = {
        # Two victims of one incident, by the limit of their pod: both have what filled that.
        "app": (5000, 300),
        "sidecar": (5000, 300),
        "earlier": (4000, 700),
        "before-the-range": (3000, 900),
    }
    series = []
    for container, (when, size) in kills.items():
        labels = f'node="a", namespace="shop", pod="web-0", container="{container}"'
        series += [
            {"series": f"oom_last_timestamp{{{labels}}}", "values": f"{when}x240"},
            {"series": f"oom_memcg_memory_bytes{{{labels}, {FILLED}}}", "values": f"{size}x240"},
            {"series": f'oom_memory_usage_bytes{{{labels}, memory_type="anon_rss"}}', "values": f"{size}x240"},
        ]
    # The last of all, by the machine's memory, of which there is no breakdown.
    series.append({"series": 'oom_last_timestamp{node="a", namespace="", pod="", container=""}', "values": "6000x240"})
    wanted = {
        "What filled the memory (A)": ("{" + FILLED + "}", 300),
        "Memory of the victims (A)": ('{memory_type="anon_rss"}', 700),
    }
    tests = [
        {"expr": queries[name], "eval_time": "2h", "exp_samples": [{"labels": labels, "value": value}]}
        for name, (labels, value) in wanted.items()
    ]
    promtool_test(tmp_path, "30s", series, tests)


def promtool_test(folder: Path, interval: str, series: list[dict], tests: list[dict]) -> None:
    """Evaluates expressions on series, without any rule."""
    test = {"interval": interval, "input_series": series, "promql_expr_test": tests}
    (folder / "expressions.yaml").write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}))
    result = promtool.run("test", "rules", str(folder / "expressions.yaml"))
    assert result.returncode == 0, result.stdout + result.stderr


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


def test_the_alerts_job_and_daemonset_follow_the_chart_name():
    rendered = helm.render({"prometheusRule": RULE, "podMonitor": {"enabled": True}, "nameOverride": "kills"})
    rules = [rule for group in helm.only(rendered, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    job_label = helm.only(rendered, "PodMonitor")["spec"]["jobLabel"]
    pod = helm.only(rendered, "DaemonSet")["spec"]["template"]["metadata"]["labels"]
    assert any(f'job="{pod[job_label]}"' in rule["expr"] for rule in rules)
    name = helm.only(rendered, "DaemonSet")["metadata"]["name"]
    (missing,) = [rule["expr"] for rule in rules if rule["alert"] == "OOMWatcherMissing"]
    assert name != "oom-watcher" and missing.count(f'daemonset="{name}"') == 2


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
    exported = METRICS | contract.SCRAPE_METRICS | contract.STATE_METRICS
    assert read <= set(exported)
    known = set().union(*(exported[metric] for metric in read)) | contract.TARGET_LABELS | {"workload"}
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


REFRESH = "cargo xtask image --guest 6.1 --write-pages, and as RELEASE.md says for the agent in trouble"


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("agent-*.txt")), ids=lambda file: file.stem)
def test_the_fixture_pages_have_every_family_of_the_agent_as_it_is_now(file: Path):
    """By docs/metrics.md, which the agent's own code writes: name, type, labels and help."""
    row = re.compile(r"^\| `(oom_\w+)` \| (\w+) \| (.*?) \| (.*?) \| .* \|$", re.MULTILINE)
    rows = row.findall((DOCS / "metrics.md").read_text())
    stated = {name: (kind, help_text) for name, kind, _, help_text in rows}
    page = file.read_text()
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", page, re.MULTILINE))
    suffixes = {"counter": "_total", "info": "_info", "gauge": "", "histogram": ""}
    declared = re.findall(r"^# TYPE (\S+) (\w+)", page, re.MULTILINE)
    assert {name + suffixes[kind]: (kind, helps[name]) for name, kind in declared} == stated, REFRESH
    labels = {name: set(re.findall(r"`(\w+)`", cell)) for name, _, cell, _ in rows}
    # A histogram's series have names of their own.
    shown = {name: set(found) for name, found, _ in contract.series(page) if name in labels}
    assert shown == {name: labels[name] for name in shown}, REFRESH


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
