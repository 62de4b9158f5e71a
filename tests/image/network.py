"""A pod's network namespace, and sockets in it without a program that enters it."""

import ctypes
import http.client
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

CLONE_NEWNET = 0x40000000
SECONDS = 5.0


class Network:
    """A network namespace, with its loopback interface up as every CNI plugin leaves it."""

    def __init__(self) -> None:
        self._name = f"oom-watcher-image-{os.getpid()}"
        self.path = Path("/run/netns") / self._name

    def __enter__(self) -> "Network":
        _ip("netns", "add", self._name)
        _ip("-n", self._name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "delete", self._name)

    def get(self, port: int, path: str) -> tuple[int, str]:
        """Status and body of an HTTP answer from inside; status 0 means none."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        try:
            connection.sock = self._inside(lambda: socket.create_connection(("127.0.0.1", port), timeout=SECONDS))
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def listen(self, port: int) -> socket.socket:
        """A socket that listens on the loopback interface inside."""
        return self._inside(lambda: socket.create_server(("127.0.0.1", port)))

    def _inside(self, make: Callable[[], socket.socket]) -> socket.socket:
        # A socket stays in the namespace of the thread that made it; the thread ends, and this one never entered.
        made: list[socket.socket | OSError] = []

        def run() -> None:
            try:
                _enter(self.path)
                made.append(make())
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        (result,) = made
        if isinstance(result, OSError):
            raise result
        return result


def _enter(path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open() as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {path}")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
