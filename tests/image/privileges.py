"""What each privilege of the chart's container gives, found by taking it away: the rows of docs/security.md."""

from collections.abc import Callable
from typing import Any

import seccomp

Json = dict[str, Any]
Change = Callable[[Json, Json], None]

BEGIN, END = "<!-- least-privilege:begin -->", "<!-- least-privilege:end -->"
LOGS = "/var/log/containers"


def nothing(_specification: Json, _profile: Json) -> None:
    """The container as the chart has it."""


def without_capabilities(*names: str) -> Change:
    """As if the chart did not add them; the filter depends on them as well."""

    def change(specification: Json, profile: Json) -> None:
        sets = specification["process"]["capabilities"]
        for kind in sets:
            sets[kind] = [name for name in sets[kind] if name not in names]
        specification["linux"]["seccomp"] = seccomp.filter_for(profile, set(sets["bounding"]))

    return change


def old_filter(specification: Json, profile: Json) -> None:
    """A filter that does not know the two capabilities."""
    specification["linux"]["seccomp"] = seccomp.filter_for(profile, set())


def without_mount(destination: str) -> Change:
    """Without one mount, its folder empty."""

    def change(specification: Json, _profile: Json) -> None:
        kept = [mount for mount in specification["mounts"] if not mount["destination"].startswith(destination)]
        specification["mounts"] = kept

    return change


CHANGES: list[tuple[str, Change]] = [
    ("nothing", nothing),
    ("`BPF`", without_capabilities("CAP_BPF")),
    ("`PERFMON`", without_capabilities("CAP_PERFMON")),
    ("both", without_capabilities("CAP_BPF", "CAP_PERFMON")),
    ("a seccomp profile that knows `BPF`: an older one lets bpf(2) pass with `SYS_ADMIN` only", old_filter),
    ("`/sys` (every runtime mounts it)", without_mount("/sys")),
    (f"`{LOGS}`", without_mount(LOGS)),
]


def table(rows: list[tuple[str, str, str]]) -> str:
    """The text between the markers."""
    lines = ["| taken away | `oom-watcher check` in the container | a kill in a pod |", "|---|---|---|"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def replaced(page: str, text: str) -> str:
    """The page with this text between its markers."""
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"
