"""A runtime's default seccomp profile, as the file that distributions ship, turned into the filter of one container.

What depends on the container is decided here as Podman, CRI-O, Docker and containerd do it: by its capabilities and the
architecture.
"""

import platform
from typing import Any

Json = dict[str, Any]

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def filter_for(profile: Json, capabilities: set[str]) -> Json:
    """`linux.seccomp` of the runtime specification for a container with these capabilities."""
    machine = ARCHITECTURES[platform.machine()]
    native = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}[machine]
    (architecture,) = [entry for entry in profile["archMap"] if entry["architecture"] == native]
    return {
        "defaultAction": profile["defaultAction"],
        **_errno(profile, "defaultErrnoRet"),
        "architectures": [native, *(architecture["subArchitectures"] or [])],
        "syscalls": [_rule(rule) for rule in profile["syscalls"] if _applies(rule, machine, capabilities)],
    }


def _applies(rule: Json, machine: str, capabilities: set[str]) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    return (
        set(includes.get("caps", [])) <= capabilities
        and _kernel() >= _version(includes.get("minKernel", "0.0"))
        and machine in includes.get("arches", [machine])
        and not capabilities & set(excludes.get("caps", []))
        and machine not in excludes.get("arches", [])
    )


def _kernel() -> tuple[int, int]:
    return _version(platform.release())


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()))


def _rule(rule: Json) -> Json:
    wanted = {"names": rule["names"], "action": rule["action"], **_errno(rule, "errnoRet")}
    if rule.get("args"):
        wanted["args"] = rule["args"]
    return wanted


def _errno(source: Json, key: str) -> Json:
    return {key: source[key]} if key in source else {}
