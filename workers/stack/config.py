"""What a stack's processes are told: `config.env` (kept, editable) and the variables made from it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from workers.stack.paths import CHECKOUT, Paths
from workers.stack.ports import Ports

HEADER = "# Chosen at set-up and kept. Change a line and run `make up`.\n"


def read(path: Path) -> dict[str, str]:
    """The settings kept in a file of `NAME=value` lines; empty when there is none."""
    if not path.exists():
        return {}
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#") and "=" in line)
    return {name.strip(): shlex.split(value)[0] if value.strip() else "" for name, value in pairs}


def write(path: Path, settings: Mapping[str, str]) -> None:
    """Keep settings, sorted."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(HEADER + "".join(f"{name}={shlex.quote(settings[name])}\n" for name in sorted(settings)))
    partial.replace(path)


def environment(paths: Paths, ports: Ports, warrant_jwks: str, kept: Mapping[str, str]) -> dict[str, str]:
    """The variables that every process of the control plane gets; none of them is secret.

    Args:
        paths: Where things lie.
        ports: What listens where.
        warrant_jwks: JWK set (JSON) that verifies warrants.
        kept: `config.env`; what stands there wins.
    """
    made = {
        "AWGP_DATA": str(paths.data),
        "AWGP_API_URL": f"http://127.0.0.1:{ports.api}",
        "AWGP_TEMPORAL_ADDRESS": f"127.0.0.1:{ports.temporal}",
        "AWGP_TEMPORAL_NAMESPACE": "awgp",
        "AWGP_BLOB_URL": f"file://{paths.blobs}",
        "AWGP_OIDC_ISSUER": f"http://127.0.0.1:{ports.dev_issuer}/realms/awgp",
        "AWGP_DEV_ISSUER_ENABLED": "true",
        "AWGP_WARRANT_PUBLIC_JWKS": warrant_jwks,
        "AWGP_AGENT_GATEWAY_URL": f"http://127.0.0.1:{ports.gateway}",
        # One machine: what connectors reach may lie beside them. An admin still has to say so of each connector.
        "AWGP_ALLOW_PRIVATE_CONNECTORS": "true",
        "AWGP_SEED_FILE": str(CHECKOUT / "deploy" / "seed.yaml"),
    }
    return {**made, **ports.settings(), **kept}


def runtime_environment(paths: Paths, ports: Ports, tenant: str, warrant_jwks: str, docker_host: str) -> dict[str, str]:
    """The variables of one tenant's host runtime: nothing of the control plane's but the broker's address."""
    return {
        "AWGP_RUNTIME_BROKER_URL": f"ws://127.0.0.1:{ports.broker}",
        "AWGP_RUNTIME_STATE_DIR": str(paths.runtime(tenant)),
        "AWGP_RUNTIME_RUN_DIR": str(paths.runs / tenant),
        "AWGP_RUNTIME_DOCKER_HOST": docker_host,
        "AWGP_RUNTIME_DOCKER_RUNTIME": "runsc-awgp",
        "AWGP_RUNTIME_PROBE_IMAGE": "awgp/sandbox:latest",
        "AWGP_RUNTIME_GUEST_PATH": str(paths.guest),
        "AWGP_RUNTIME_RUNTIME_NAME": f"{tenant}-embedded",
        "AWGP_RUNTIME_WARRANT_JWKS": warrant_jwks,
    }
