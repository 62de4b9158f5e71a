"""The chart's documents: their links lead somewhere, and what they name exists."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from charttool import contract, helm, manifests, readme
from charttool.paths import CHART, DOCS, K8S, ROOT

OWNED = [DOCS / "install.md", DOCS / "operations.md", DOCS / "security.md", CHART / "README.md"]
LINKED = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), CHART / "README.md"]
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("file", ["README.md", "Chart.yaml", "templates/NOTES.txt"])
def test_links_of_what_is_packaged_lead_somewhere_from_anywhere(file: str):
    """The chart is also read where there is no repository around it."""
    text = (CHART / file).read_text()
    home = yaml.safe_load((CHART / "Chart.yaml").read_text())["home"]
    assert all(target.startswith("https://") for target in re.findall(r"\]\(([^)]+)\)", text))
    pages = [target.partition("#") for target in re.findall(rf"{home}/blob/main/([^)\s]+)", text)]
    assert len(pages) == {"README.md": 3, "Chart.yaml": 2}.get(file, 0)
    for name, _, anchor in pages:
        assert (ROOT / name).exists() and (not anchor or anchor in anchors(ROOT / name)), name


@pytest.mark.parametrize("path", OWNED, ids=lambda path: path.name)
def test_values_that_are_named_exist(path: Path):
    groups = "|".join(key for key, value in DEFAULTS.items() if isinstance(value, dict) and value)
    text = re.sub(re.escape(readme.BEGIN) + ".*" + re.escape(readme.END), "", path.read_text(), flags=re.DOTALL)
    for named in re.findall(rf"(?:`|--set )((?:{groups})\.[A-Za-z.]+)", text):
        # A map of free keys (labels) counts for the key below it.
        assert exists(named) or (named.count(".") == 2 and exists(named.rpartition(".")[0])), named


def exists(path: str) -> bool:
    """Whether the defaults have a value there."""
    try:
        readme.lookup(DEFAULTS, path)
    except KeyError:
        return False
    return True


@pytest.mark.parametrize("path", OWNED, ids=lambda path: path.name)
def test_metrics_that_are_named_exist(path: Path):
    # Of the agent's further metrics, which neither alert nor dashboard reads.
    further = {
        "oom_watcher_http_rejected_total",
        "oom_watcher_kills_before_start",
        "oom_watcher_oom_score_adj",
        "oom_watcher_pinned",
        "oom_watcher_recovered_kills_total",
        "oom_watcher_series_evicted_total",
        "oom_watcher_state_errors_total",
        "oom_watcher_unwatched_kills",
    }
    named = set(re.findall(r"`(oom_[a-z_]+)", path.read_text())) - {"oom_score_adj", "oom_kill"}
    assert named <= set(contract.metrics()) | further


def test_removal_with_kubectl_leaves_nothing_behind():
    text = (DOCS / "operations.md").read_text().partition("### With kubectl")[2]
    deleted = {kind for kinds in re.findall(r"delete ([a-z,]+) -l", text) for kind in kinds.split(",")}
    files = [K8S / name for name, (_, _, _) in manifests.FILES.items()]
    kinds = {found["kind"].lower() for file in files for found in helm.parse(file.read_text())}
    assert deleted == kinds - {"namespace"}
    assert "namespace `oom-watcher` in it" in text, "deleting by the file takes the namespace along"


AGENT = ROOT / "oom-watcher"
# What a scenario may need, and where that is: the functions of the suites that say whether a machine can have it.
MACHINES = {
    "anywhere": "here",
    "cgroup::v2": "guest",
    "machine::guest": "guest",
    "machine::not_a_guest": "guest",
    "machine::unpinnable": "here",
    "machine::pinnable": "guest",
    "real_machine": "here",
    "CpuQuota::missing": "here",
}


def proofs() -> list[str]:
    """The last column of the table of failures."""
    table = (DOCS / "operations.md").read_text().partition("| failure |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert len(rows) > 25 and all(len(row) == 4 for row in rows), "the table has another form"
    return [row[3] for row in rows]


def scenarios(suite: str) -> dict[str, str]:
    """The scenarios of a suite, each with the function that says whether a machine can have it."""
    text = "\n".join(source.read_text() for source in (AGENT / "tests" / suite).glob("*.rs"))
    plain = {name: "anywhere" for name in re.findall(r'\banywhere\(\s*"([a-z0-9-]+)"', text)}
    form = r'Scenario \{\s*name: "([a-z0-9-]+)",\s*(?:impossible|possible): ([A-Za-z_:0-9]+),'
    return plain | dict(re.findall(form, text))


def runs(suite: str, name: str, machine: str) -> bool:
    """Whether a step of `cargo xtask test` runs a scenario on such a machine."""
    steps = (ROOT / "xtask" / "src" / "test.rs").read_text()
    if machine == "here":
        return f'step("{suite}",' in steps
    if suite == "kernel":
        return '"xtask", "vm", "--kernels"' in steps
    (guest,) = re.findall(r"^const GUEST_RESTART: .*?^\];", steps, re.MULTILINE | re.DOTALL)
    return any(part in name for part in re.findall(r'"--filter",\s*"([a-z-]+)"', guest))


def test_failures_are_proved_by_scenarios_that_are_run():
    named = [
        (suite, name)
        for proof in proofs()
        for suite, names in re.findall(r"(restart|kernel): ([a-z0-9, -]+)", proof)
        for name in names.strip().split(", ")
    ]
    assert len(named) > 30, "the table has another form"
    known = {suite: scenarios(suite) for suite in ("restart", "kernel")}
    for suite, name in named:
        assert name in known[suite], (suite, name)
        assert runs(suite, name, MACHINES[known[suite][name]]), (suite, name, "no step of cargo xtask test can run it")


def test_failures_are_proved_by_tests_that_exist():
    modules = [module for proof in proofs() for module in re.findall(r"`([a-z0-9_/]+)`", proof)]
    assert len(modules) > 5, "the table has another form"
    for module in modules:
        places = [AGENT / "src" / f"{module}.rs", AGENT / "src" / module / "mod.rs", AGENT / "tests" / f"{module}.rs"]
        found = [place for place in places if place.exists()]
        assert found, module
        below = [source for place in found for source in place.with_suffix("").rglob("*.rs")]
        beside = [source for place in found if place.name == "mod.rs" for source in place.parent.rglob("*.rs")]
        assert any("#[test]" in s.read_text() or "::test]" in s.read_text() for s in found + below + beside), module


def test_every_failure_has_its_proof():
    for proof in proofs():
        assert re.search(r"(restart|kernel): [a-z]|`[a-z]|the kernel suite on machines without", proof), proof


def test_every_stage_of_the_agent_has_its_row_in_the_runbook():
    page = (ROOT / "tests" / "chart" / "fixtures" / "agent-after.txt").read_text()
    stages = {labels["stage"] for name, labels, _ in contract.series(page) if name == "oom_watcher_lost_events_total"}
    runbook = (DOCS / "operations.md").read_text()
    assert {stage for stage in stages if f"| `{stage}` |" not in runbook} == {"attribute", "report"}, "nothing is lost there"


def test_systemd_accepts_the_unit(tmp_path: Path, need):
    (unit,) = re.findall(r"^```ini\n(.*?)^```$", (DOCS / "install.md").read_text(), re.MULTILINE | re.DOTALL)
    assert "ExecStart=/usr/local/bin/oom-watcher " in unit
    # A program that is there on any machine; the rest is as documented.
    file = tmp_path / "oom-watcher.service"
    file.write_text(unit.replace("/usr/local/bin/oom-watcher", "/bin/true"))
    command = [need("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", file]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and not result.stderr, result.stderr
    file.write_text(file.read_text().replace("NoNewPrivileges", "NoNewPrivilege"))
    assert "Unknown key" in subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_the_unit_lets_the_agent_make_every_call_that_it_lets_itself(need):
    (allowed,) = re.findall(r"^SystemCallFilter=(.*)$", (DOCS / "install.md").read_text(), re.MULTILINE)
    source = (AGENT / "src" / "seccomp.rs").read_text().split("#[cfg(test)]")[0]
    calls = set(re.findall(r"SYS_(\w+)", source))
    assert {"openat", "clone3", "socket"} <= calls, "the list has another form"
    # What hooks are attached with before that, and what installs the list.
    calls |= {"bpf", "perf_event_open", "seccomp"}
    assert calls - expanded(allowed.split(), need("systemd-analyze")) == set()


def expanded(names: list[str], program: str) -> set[str]:
    """System calls, with those of the sets that systemd knows."""
    found: set[str] = set()
    for name in names:
        if not name.startswith("@"):
            found.add(name)
            continue
        listed = subprocess.run([program, "syscall-filter", name], capture_output=True, text=True, check=True).stdout
        members = [line.strip() for line in listed.splitlines()[1:] if not line.strip().startswith("#")]
        found |= expanded([member for member in members if member], program)
    return found
