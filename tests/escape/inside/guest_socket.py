"""Speaks on the guest's socket in the guest's place: nonsense, too much of it, and lies."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import struct
import sys
import time

from harness import WHERE, Refused

_MIB = 1 << 20


def _frame(kind: bytes, payload: bytes = b"", length: int | None = None) -> bytes:
    return kind + struct.pack(">I", len(payload) if length is None else length) + payload


def _json(kind: bytes, **fields: object) -> bytes:
    return _frame(kind, json.dumps(fields).encode())


def _output(offset: int, data: bytes, stream: int = 1, at: int = 1) -> bytes:
    return _frame(b"O", struct.pack(">QBQ", offset, stream, at) + data)


def _dial() -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(1.5)
    line.connect(f"/awgp/run/{WHERE.get('guest_socket', 'guest.sock')}")
    return line


def _exactly(line: socket.socket, size: int) -> bytes:
    pieces = b""
    while len(pieces) < size:
        piece = line.recv(size - len(pieces))
        if not piece:
            raise Refused("the host closed the connection")
        pieces += piece
    return pieces


def _next(line: socket.socket) -> tuple[bytes, bytes]:
    kind, length = struct.unpack(">cI", _exactly(line, 5))
    return kind, _exactly(line, length)


def _hello() -> tuple[socket.socket, dict[str, object]]:
    line = _dial()
    line.sendall(_json(b"H", pid=1, guest_version="1"))
    kind, payload = _next(line)
    if kind != b"W":
        raise Refused(f"no welcome: {kind!r}")
    return line, json.loads(payload)


def _takes(*frames: bytes) -> str:
    """Won where the host goes on with a connection that said this."""
    line, _ = _hello()
    with line:
        with contextlib.suppress(OSError):
            for piece in frames:
                line.sendall(piece)
            line.sendall(_json(b"A", path="probe", size=0))
            line.sendall(_json(b"E", path="probe", sha256=hashlib.sha256().hexdigest()))
        try:
            while True:
                if _next(line)[0] == b"C":
                    return "the host went on"
        except OSError as error:
            raise Refused(str(error) or "the host closed the connection") from error


def honest() -> str:
    """No attack: shows that the others are refused for what they say."""
    return _takes()


def giant_frame() -> str:
    """Announced as 2 GiB, sent as 4 MiB."""
    line, _ = _hello()
    with line:
        line.sendall(_frame(b"O", length=1 << 31))
        sent = 0
        try:
            while sent < 4 * _MIB:
                sent += line.send(b"x" * 65536)
        except OSError as error:
            raise Refused(f"closed after {sent} bytes") from error
        time.sleep(0.3)
        try:
            line.send(b"x")
        except OSError as error:
            raise Refused(f"closed after {sent} bytes") from error
    return f"the host took {sent} bytes of one frame"


def before_hello() -> str:
    with _dial() as line:
        line.sendall(_output(0, b"forged"))
        return f"answered {_next(line)[0]!r}"


def garbage() -> str:
    with _dial() as line:
        line.sendall(os.urandom(4096))
        return f"answered {_next(line)[0]!r}"


def http() -> str:
    with _dial() as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return f"answered {_next(line)[0]!r}"


def gap_in_output() -> str:
    return _takes(_output(1 << 40, b"far ahead"))


def short_output() -> str:
    return _takes(_frame(b"O", b"short"))


def unknown_stream() -> str:
    return _takes(_output(0, b"x", stream=9))


def time_beyond_the_calendar() -> str:
    return _takes(_output(0, b"x", at=(1 << 64) - 1))


def no_json() -> str:
    return _takes(_frame(b"X", b"\xff\xfe{"))


def deep_json() -> str:
    return _takes(_frame(b"X", b'{"exit_code":0,"detail":' + b"[" * 200_000 + b"}"))


def exit_of_another_type() -> str:
    return _takes(_json(b"X", exit_code="zero", output_total=-1))


def end_before_the_output() -> str:
    return _takes(_json(b"X", exit_code=0, output_total=1 << 40), _json(b"Z", artifacts=0, skipped=[]))


def artifact_without_head() -> str:
    return _takes(_frame(b"D", b"x" * 100))


def artifact_longer_than_said() -> str:
    return _takes(_json(b"A", path="long", size=3), _frame(b"D", b"x" * 100))


def artifact_of_another_digest() -> str:
    return _takes(_json(b"A", path="lie", size=1), _frame(b"D", b"x"), _json(b"E", path="lie", sha256="0" * 64))


def end_of_another_artifact() -> str:
    return _takes(_json(b"A", path="one", size=0), _json(b"E", path="two", sha256=hashlib.sha256().hexdigest()))


def artifact_of_negative_size() -> str:
    return _takes(_json(b"A", path="negative", size=-5))


def unread_replies() -> str:
    """Makes the host answer and reads none of it."""
    line, _ = _hello()
    with line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(3)
        empty = _json(b"A", path="/never", size=0) + _json(b"E", path="/never", sha256=hashlib.sha256().hexdigest())
        try:
            for _ in range(300):
                line.sendall(empty * 100)
        except OSError as error:
            raise Refused(f"the host stopped: {error}") from error
    return "the host kept 30,000 unread replies"


def endless_connections() -> str:
    """Half a frame on each of 300 connections: does the guest's own way still open?"""
    lines: list[socket.socket] = []
    try:
        for _ in range(300):
            line = _dial()
            line.sendall(b"H\0")
            lines.append(line)
        try:
            _hello()[0].close()
        except (OSError, Refused) as error:
            return f"nobody else is let in: {error}"
    finally:
        for line in lines:
            line.close()
    raise Refused(f"beside {len(lines)} half frames the host still welcomes")


def _lie(*frames: bytes) -> None:
    line, welcome = _hello()
    with line:
        line.sendall(b"".join(frames) + _json(b"X", exit_code=0, output_total=welcome["output_offset"]))
        line.sendall(_json(b"Z", artifacts=0, skipped=[]))
        time.sleep(0.5)


def forged_success() -> None:
    """As the agent itself: says that it ended well, and fails."""
    _lie()
    os._exit(3)


def forged_lease_end() -> None:
    os._exit(143)


def forged_paths() -> None:
    empty = hashlib.sha256(b"x").hexdigest()
    paths = ["../../escaped", "/etc/cron.d/escaped", "a/../../escaped", "", ".", "nul\0byte", "x" * 5000, "..", "a//b"]
    line, _ = _hello()
    with line:
        for path in paths:
            line.sendall(_json(b"A", path=path, size=1) + _frame(b"D", b"x") + _json(b"E", path=path, sha256=empty))
        time.sleep(0.5)


def rewritten_output() -> None:
    """Says again, in other words, what was kept already."""
    print("the truth", flush=True)
    time.sleep(1)
    line, _ = _hello()
    with line:
        line.sendall(_output(0, b"the lies!\n"))
        time.sleep(0.5)


def forged_words() -> None:
    """What people will read of the end: control characters, half characters, a million of them."""
    line, welcome = _hello()
    with line:
        detail = "\0\x1b[2J" + "x" * 100_000
        skipped = [{"path": f"../{number}\0", "reason": "\x1b]0;" + "y" * 200} for number in range(4000)]
        line.sendall(_json(b"X", exit_code=10**30, output_total=welcome["output_offset"], detail=detail, signal="\0"))
        line.sendall(_json(b"Z", artifacts=10**30, skipped=skipped))
        time.sleep(0.5)
    os._exit(4)


if __name__ == "__main__" and len(sys.argv) > 1:
    sys.path.insert(0, os.path.dirname(__file__))
    globals()[sys.argv[1]]()
