"""Memory cgroups of the test's own, on either version, and a kill inside one of them."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
# Emulated and busy machines are slow.
PATIENCE = 120
UNIFIED = (ROOT / "cgroup.controllers").exists()
# Enters a cgroup before it has memory to speak of; takes some of the shared kind, then of its own until it is killed.
VICTIM = """
import mmap, sys
with open(sys.argv[1], "w") as group, open("/proc/self/oom_score_adj", "w") as score:
    group.write("0")
    score.write(sys.argv[2])
shared = mmap.mmap(-1, 1 << 21)
shared.write(bytes(1 << 21))
taken = []
while True:
    taken.append(bytearray(1 << 20))
"""


class Cgroup:
    """A cgroup with a memory limit; gone, with everything below it, when the context ends."""

    def __init__(self, path: str, limit: int | None = None) -> None:
        self.path = path
        self._limit = limit

    def __enter__(self) -> "Cgroup":
        folder = ROOT if UNIFIED else ROOT / "memory"
        for name in self.path.strip("/").split("/"):
            if UNIFIED:
                (folder / "cgroup.subtree_control").write_text("+memory")
            folder /= name
            folder.mkdir(exist_ok=True)
        if self._limit is not None:
            (folder / ("memory.max" if UNIFIED else "memory.limit_in_bytes")).write_text(str(self._limit))
            # With swap to go to, who asks for too much is not killed.
            if UNIFIED and (swap := folder / "memory.swap.max").exists():
                swap.write_text("0")
        return self

    def __exit__(self, *_: object) -> None:
        remove(self.path)

    def kill(self, score: int = 0) -> int:
        """Lets a process run out of memory; its pid. With a score of 1000 it is the one to go when the machine runs out."""
        procs = ROOT / ("" if UNIFIED else "memory") / self.path.strip("/") / "cgroup.procs"
        with subprocess.Popen([sys.executable, "-c", VICTIM, procs, str(score)]) as victim:
            try:
                status = victim.wait(timeout=PATIENCE)
            finally:
                victim.kill()
        if status != -9:
            raise AssertionError(f"the process in {procs.parent} was not killed but ended with {status}")
        return victim.pid


def peak(path: str) -> int:
    """The most memory that a cgroup ever had, in bytes. Version 2 tells since Linux 5.19."""
    place = path.strip("/")
    file = ROOT / place / "memory.peak" if UNIFIED else ROOT / "memory" / place / "memory.max_usage_in_bytes"
    return int(file.read_text())


def remove(path: str) -> None:
    """Removes a cgroup and what is below it from every hierarchy; what has processes stays and is an error."""
    for hierarchy in [ROOT] if UNIFIED else sorted(ROOT.iterdir()):
        top = hierarchy / path.strip("/")
        if not top.is_dir():
            continue
        for folder, _, _ in os.walk(top, topdown=False):
            _remove_one(Path(folder))


def _remove_one(folder: Path) -> None:
    # The last process may still be on its way out.
    for _ in range(50):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    folder.rmdir()
