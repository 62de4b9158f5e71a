"""What stands for the container runtime: a socket that answers every question with one container.

Of HTTP/2 it has what one call at a time needs: no header is looked at, since the agent asks one thing only.
"""

import socket
import struct
import threading
from pathlib import Path

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, ACK, END_HEADERS = 1, 1, 4
# Headers by the static table of HPACK and as literals: status 200 with its type, and what ends a call well.
OPENING = b"\x88" + b"\x00\x0ccontent-type\x10application/grpc"
CLOSING = b"\x00\x0bgrpc-status\x010"


class Runtime:
    """A CRI that lists this container, while the context lasts."""

    def __init__(self, path: Path, container: str, labels: dict[str, str]) -> None:
        pairs = (text(1, key) + text(2, value) for key, value in labels.items())
        listed = text(1, container) + b"".join(part(8, pair) for pair in pairs)
        message = part(1, listed)
        self._answer = struct.pack(">BI", 0, len(message)) + message
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))

    def __enter__(self) -> "Runtime":
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # It wakes who waits in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=[connection], daemon=True).start()
        except OSError:
            return

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as incoming:
            if incoming.read(len(PREFACE)) != PREFACE:
                raise ValueError("this is not HTTP/2")
            connection.sendall(frame(SETTINGS, 0, 0))
            while len(head := incoming.read(9)) == 9:
                length, kind, flags, stream = int.from_bytes(head[:3]), head[3], head[4], int.from_bytes(head[5:])
                payload = incoming.read(length)
                if kind in (SETTINGS, PING) and not flags & ACK:
                    connection.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
                if kind in (DATA, HEADERS) and flags & END_STREAM:
                    connection.sendall(
                        frame(HEADERS, END_HEADERS, stream, OPENING)
                        + frame(DATA, 0, stream, self._answer)
                        + frame(HEADERS, END_HEADERS | END_STREAM, stream, CLOSING)
                    )


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


def text(number: int, value: str) -> bytes:
    """A field of a protobuf message that is a string."""
    return part(number, value.encode())


def part(number: int, value: bytes) -> bytes:
    """A field of a protobuf message that has a length."""
    length, size = len(value), b""
    while length > 0x7F:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + value
