"""Ports: the defaults where they are free, others where they are taken; chosen once and kept."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields

# Below the range from which the kernel takes ports of outgoing connections, so that none lands on ours.
FREE_RANGE = range(20000, 32000)


@dataclass(frozen=True)
class Ports:
    """What listens where, all on loopback. Setting: `AWGP_<FIELD>_PORT`."""

    api: int = 4000
    broker: int = 4100
    dev_issuer: int = 4200
    gateway: int = 4300
    scripted: int = 4310
    temporal: int = 7233
    temporal_ui: int = 8233
    postgres: int = 5433
    valkey: int = 6380

    def settings(self) -> dict[str, str]:
        """As settings, to be kept."""
        return {f"AWGP_{field.name.upper()}_PORT": str(getattr(self, field.name)) for field in fields(self)}


def is_free(port: int) -> bool:
    """Whether somebody could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose(kept: Mapping[str, str], asked: Mapping[str, str], any_free: bool) -> Ports:
    """Choose the ports: kept ones, then asked-for ones, then defaults that are free, then free ones.

    Args:
        kept: Settings of an earlier set-up.
        asked: The environment.
        any_free: Take no default (private stacks of tests).
    """
    chosen: dict[str, int] = {}
    for field in fields(Ports):
        name = f"AWGP_{field.name.upper()}_PORT"
        if name in kept:
            chosen[field.name] = int(kept[name])
            continue
        wanted = asked.get(name, "" if any_free else str(field.default))
        taken = set(chosen.values())
        if wanted and is_free(int(wanted)) and int(wanted) not in taken:
            chosen[field.name] = int(wanted)
        else:
            chosen[field.name] = _free(taken)
    return Ports(**chosen)


def _free(taken: set[int]) -> int:
    for port in random.sample(FREE_RANGE, len(FREE_RANGE)):
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port between {FREE_RANGE.start} and {FREE_RANGE.stop}")
