"""What each privilege of the chart's container gives, found by taking it away or adding it: the rows of docs/security.md."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import seccomp

Json = dict[str, Any]
Change = Callable[[Json, Json], None]

# What might be added, and its number.
ADDED = {"SYS_RESOURCE": 24, "SYSLOG": 34, "SYS_ADMIN": 21}
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


def with_capability(name: str) -> Change:
    """As if the chart added one more."""

    def change(specification: Json, profile: Json) -> None:
        sets = specification["process"]["capabilities"]
        for kind in sets:
            sets[kind] = [*sets[kind], name]
        specification["linux"]["seccomp"] = seccomp.filter_for(profile, set(sets["bounding"]))

    return change


def locked_memory(specification: Json, _profile: Json) -> None:
    """With the little memory to lock that a process has where nobody raised it."""
    specification["process"]["rlimits"] = [{"type": "RLIMIT_MEMLOCK", "soft": 65536, "hard": 65536}]


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
    ("memory to lock: RLIMIT_MEMLOCK of 64 KiB", locked_memory),
    *((f"nothing; `{name}` added", with_capability(f"CAP_{name}")) for name in ADDED),
]


def missing_here(change: str) -> str | None:
    """The capability that a change would add and this machine lacks: a container has none that its parent has not."""
    bounding = int(Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0], 16)
    return next((name for name, bit in ADDED.items() if f"`{name}` added" in change and not bounding & 1 << bit), None)
