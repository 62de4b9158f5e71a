#!/usr/bin/env python3
"""Has the kernel's OOM killer kill a process, safely: to see oom-watcher report it.

Each victim is a child of this script in a memory cgroup of its own, whose limit is small. Three things keep the machine
safe: the cgroup's limit, a bound on the child's address space should that limit not hold, and `oom_score_adj` 1000, which
makes the child the first choice wherever memory runs out. The cgroup is removed at the end, also when interrupted.
Needs root, Python 3.9 and a kernel from 4.13 on, with memory cgroups of version 1 or 2.
"""

import argparse
import mmap
import os
import resource
import signal
import sys
import time
from pathlib import Path

MIB = 1 << 20
LIMIT_MIB = range(20, 65)
COUNT = range(1, 1001)
# The child ends by itself after this, killed or not.
CHILD_SECONDS = 20
# How long the kernel may take to uncharge the emptied cgroup.
REMOVE_SECONDS = 5
# Exit codes of a child that was not killed.
SURVIVED, BROKEN = 3, 4


class Failure(Exception):
    """What went wrong, in words for the person at the terminal."""


class MemoryCgroup:
    """A memory cgroup with a limit, of version 1 or 2."""

    def __init__(self, parent: Path, version: int, limit: int) -> None:
        self.path = parent / f"oom-watcher-trigger-{os.getpid()}"
        self.events = "memory.events" if version == 2 else "memory.oom_control"
        try:
            self.path.mkdir()
        except OSError as error:
            raise Failure(f"cannot make the cgroup {self.path}: {error.strerror}; inside a container the tree is "
                          "usually read-only: run this on the machine itself") from error
        try:
            self._set_limit(version, limit)
        except OSError as error:
            self.remove()
            raise Failure(f"cannot set the limit of {self.path}: {error.strerror}") from error

    def _set_limit(self, version: int, limit: int) -> None:
        names = {1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"), 2: ("memory.max", "memory.swap.max")}
        memory, swap = names[version]
        (self.path / memory).write_text(str(limit))
        # Not there on kernels without swap accounting. Version 1 counts memory and swap together.
        if (self.path / swap).exists():
            (self.path / swap).write_text(str(limit if version == 1 else 0))

    def kills(self) -> int:
        """Processes that the OOM killer killed in it."""
        for line in (self.path / self.events).read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
        raise Failure(f"{self.path / self.events} does not count kills: the kernel is older than 4.13")

    def remove(self) -> None:
        """Removes it, once the kernel lets go of the last process."""
        deadline = time.monotonic() + REMOVE_SECONDS
        while True:
            try:
                return self.path.rmdir()
            except OSError as error:
                if time.monotonic() > deadline:
                    raise Failure(f"cannot remove the cgroup {self.path}: {error.strerror}") from error
                time.sleep(0.01)


def find_hierarchy() -> tuple[Path, int]:
    """The root of the hierarchy that has the memory controller, and its version."""
    unified = None
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(","):
            return Path(place), 1
        if kind == "cgroup2":
            unified = Path(place)
    if unified and "memory" in (unified / "cgroup.controllers").read_text().split():
        enable_memory(unified)
        return unified, 2
    raise Failure("no memory cgroup hierarchy is mounted: the kernel lacks CONFIG_MEMCG, or was booted with "
                  "cgroup_disable=memory")


def enable_memory(root: Path) -> None:
    """Lets children of the root have memory limits: systemd has usually done so."""
    control = root / "cgroup.subtree_control"
    if "memory" in control.read_text().split():
        return
    try:
        control.write_text("+memory")
    except OSError as error:
        raise Failure(f"cannot enable the memory controller in {control}: {error.strerror}; inside a container the tree "
                      "belongs to the runtime: run this on the machine itself") from error


def grow(group: Path, limit: int) -> None:
    """The child: enters the cgroup and asks for twice what it allows. It does not return."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(CHILD_SECONDS)
    # What Python has mapped already, what it may yet need for itself, and the memory below.
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    bound = mapped + 2 * limit + 8 * MIB
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    Path("/proc/self/oom_score_adj").write_text("1000")
    (group / "cgroup.procs").write_text("0")
    memory = mmap.mmap(-1, 2 * limit, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, len(memory), mmap.PAGESIZE):
        memory[page] = 1
    os._exit(SURVIVED)


def kill_one(group: MemoryCgroup, limit: int) -> int:
    """Has one child killed, and returns its pid."""
    before = group.kills()
    child = os.fork()
    if child == 0:
        try:
            grow(group.path, limit)
        except BaseException as error:
            print(f"error: the child could not be made to grow: {error}", file=sys.stderr, flush=True)
            os._exit(BROKEN)
    try:
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    if group.kills() == before:
        outcome = os.waitstatus_to_exitcode(status)
        reason = "the limit did not hold" if outcome == SURVIVED else f"it ended with {outcome}"
        raise Failure(f"no kill: the OOM killer left the child {child} alone; {reason}")
    return child


def number_in(allowed: range, unit: str = ""):
    """Parses a number of a range."""
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) not in allowed:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {allowed[0]} to {allowed[-1]}{unit}")
        return int(text)
    return parse


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=number_in(COUNT), default=1, metavar="N", help="kills, one after the other (1)")
    parser.add_argument("--limit", type=number_in(LIMIT_MIB, " (MiB)"), default=32, metavar="MIB",
                        help="what the cgroup allows, in MiB: 20 to 64 (32)")
    return parser.parse_args()


def run(count: int, limit: int) -> None:
    """Makes the cgroup, has the children killed, removes the cgroup."""
    if os.geteuid() != 0:
        raise Failure("making a memory cgroup needs root: sudo python3 scripts/trigger_oom.py")
    parent, version = find_hierarchy()
    group = MemoryCgroup(parent, version, limit)
    try:
        for _ in range(count):
            child = kill_one(group, limit)
            print(f"killed pid {child} in {group.path} (cgroup v{version}, limit {limit // MIB} MiB)", flush=True)
    finally:
        group.remove()


def main() -> int:
    """Exit code 0: every kill happened. 1: one did not. 2: a wrong argument. 130: interrupted."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(arguments.count, arguments.limit * MIB)
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
