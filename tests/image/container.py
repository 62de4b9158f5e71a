"""One container under a real OCI runtime."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]
# Emulated and busy machines are slow; nothing here waits longer when all is well.
PATIENCE = 60.0

UNIFIED_OF_HYBRID = Path("/sys/fs/cgroup/unified")
# crun refuses a machine with both versions of cgroups; in a mount namespace without the second it sees the first alone.
_WITHOUT_UNIFIED = (
    ["unshare", "--mount", "sh", "-c", f'umount {UNIFIED_OF_HYBRID} && exec "$@"', "sh"]
    if (UNIFIED_OF_HYBRID / "cgroup.controllers").exists()
    else []
)


class Container:
    """Runs from the beginning of its context to the end."""

    def __init__(self, runtime: str, specification: Json, folder: Path) -> None:
        self._runtime = [runtime, "--root", str(folder / "state")]
        self._bundle = folder / "bundle"
        self._name = f"oom-watcher-image-{os.getpid()}-{folder.name}"
        self.stdout = folder / "stdout"
        self.stderr = folder / "stderr"
        self._bundle.mkdir(parents=True)
        (self._bundle / "config.json").write_text(json.dumps(specification, indent=1))

    def __enter__(self) -> "Container":
        with self.stdout.open("wb") as stdout, self.stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [*_WITHOUT_UNIFIED, *self._runtime, "run", "--bundle", str(self._bundle), self._name],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._signal("KILL")
            self._process.wait(timeout=PATIENCE)
        subprocess.run([*self._runtime, "delete", "--force", self._name], capture_output=True, check=False)

    @property
    def pid(self) -> int:
        """Its first process, seen from the machine."""
        state = subprocess.run([*self._runtime, "state", self._name], capture_output=True, check=True, text=True)
        return int(json.loads(state.stdout)["pid"])

    def status(self, field: str) -> str:
        """A line of /proc/<pid>/status."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        (value,) = [line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{field}:")]
        return value

    def lines(self) -> list[Json]:
        """The lines of standard output that are whole."""
        return [json.loads(line) for line in self.stdout.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def reports(self) -> list[Json]:
        """Those of them that are about a kill."""
        return [line for line in self.lines() if "type" not in line]

    def until(self, what: str, happens: Callable[[], Any]) -> Any:
        """The first true value; an error with the container's own words if it ends or nothing comes."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            if value := happens():
                return value
            time.sleep(0.05)
        ended = self._process.poll()
        state = "still runs" if ended is None else f"ended with {ended}"
        raise AssertionError(f"not {what}; the container {state}: {self.stderr.read_text()}")

    def terminate(self) -> int:
        """SIGTERM, as the kubelet sends it; the exit status."""
        self._signal("TERM")
        return self._process.wait(timeout=PATIENCE)

    def wait(self) -> int:
        """The exit status of one that ends by itself."""
        return self._process.wait(timeout=PATIENCE)

    def _signal(self, name: str) -> None:
        number = str(int(signal.Signals[f"SIG{name}"]))
        subprocess.run([*self._runtime, "kill", self._name, number], capture_output=True, check=False)
