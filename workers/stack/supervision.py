"""Speaks to a running supervisord over its Unix socket."""

from __future__ import annotations

import contextlib
import socket
import time
import xmlrpc.client
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, cast

from workers.stack.paths import Paths
from workers.stack.steps import until
from workers.stack.supervisor import socket_path

UNREACHABLE = (OSError, HTTPException, xmlrpc.client.ProtocolError)


@dataclass(frozen=True)
class ProcessState:
    """What supervisord says of a process.

    Attributes:
        name: The program.
        state: RUNNING, STARTING, BACKOFF, STOPPED, STOPPING, EXITED or FATAL.
        pid: 0 while it does not run.
        seconds: How long it has been in this state.
    """

    name: str
    state: str
    pid: int
    seconds: int


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket; closed also when nobody answers."""

    def __init__(self, path: Path) -> None:
        super().__init__("supervisor", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._made = _UnixConnection(path)

    def make_connection(self, host: object) -> HTTPConnection:
        return self._made

    def close(self) -> None:
        self._made.close()


class Supervision:
    """A client of one stack's supervisord; every call connects anew, so it survives a restart."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def _call(self, method: str, *arguments: object) -> Any:
        with xmlrpc.client.ServerProxy(
            "http://supervisor", transport=_UnixTransport(socket_path(self._paths))
        ) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def pid(self) -> int | None:
        """Supervisord's own pid; None when it does not answer."""
        try:
            return int(self._call("getPID"))
        except xmlrpc.client.Fault:  # SHUTDOWN_STATE: it is ending, but not yet gone
            return self._recorded_pid()
        except UNREACHABLE:
            return None

    def _recorded_pid(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return int((self._paths.supervisor / "supervisord.pid").read_text())
        return None

    def states(self) -> dict[str, ProcessState]:
        """Every process by name; empty when supervisord does not answer."""
        try:
            answer = cast("list[dict[str, Any]]", self._call("getAllProcessInfo"))
        except (xmlrpc.client.Fault, *UNREACHABLE):
            return {}
        return {
            str(each["name"]): ProcessState(
                str(each["name"]), str(each["statename"]), int(each["pid"]), int(each["now"]) - int(each["start"])
            )
            for each in answer
        }

    def start(self, name: str) -> None:
        """Begin to start a process, unless it runs or is being started already."""
        with contextlib.suppress(xmlrpc.client.Fault):  # ALREADY_STARTED
            self._call("startProcess", name, False)

    def stop(self, name: str) -> None:
        """Stop a process and wait for its end."""
        with contextlib.suppress(xmlrpc.client.Fault):  # NOT_RUNNING
            self._call("stopProcess", name, True)

    def restart(self, name: str) -> None:
        """Stop a process, then begin to start it."""
        self.stop(name)
        self.start(name)

    def shutdown(self, seconds: float = 60) -> bool:
        """End supervisord and all its processes; whether it went within the time."""
        with contextlib.suppress(xmlrpc.client.Fault, *UNREACHABLE):
            self._call("shutdown")
        return any(self.pid() is None for _ in until(time.monotonic() + seconds))

    def wait_running(self, name: str, not_pid: int = 0, seconds: float = 60) -> int:
        """Wait until a process runs under another pid than `not_pid`; its pid.

        Raises:
            TimeoutError: It did not.
        """
        for _ in until(time.monotonic() + seconds):
            state = self.states().get(name)
            if state is not None and state.state == "RUNNING" and state.pid not in (0, not_pid):
                return state.pid
        raise TimeoutError(f"{name} did not run within {seconds:.0f} s")
