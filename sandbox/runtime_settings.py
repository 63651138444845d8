"""The host runtime's own settings; it reads nothing of the control plane's."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from sandbox.warm_pool import read_warm


class RuntimeSettings(BaseSettings):
    """Environment ``AWGP_RUNTIME_…``, or files ``awgp_runtime_…`` in the secrets folder.

    Attributes:
        broker_url: ``ws(s)://host:port`` or ``http(s)://…`` of a broker.
        state_dir: Its key, placements and spools; closed to others.
        run_dir: Parent of the bind-mounted folders; the same path on the Docker host.
        capacity: Sandboxes at once.
        enrolment_token: One-time; for the first start only.
        guest_path: The guest binary, for the Docker engine.
        warrant_jwks: Pins the keys of warrants; else the broker's welcome says them.
        probe_image: An image with python3 that the probe runs in.
        containerd_socket: The engine's containerd, for clearing failed starts.
        gateway_url: The model gateway that agents' calls go to; empty: the broker's welcome says it.
        api_url: The control plane's API that agents ask; empty: the broker's welcome says it.
        warm: Sandboxes to keep ready: ``image=count`` with commas between, for runs with the default limits; or a
            JSON list of ``{"image", "count", "limits"}``. Empty: none.
        null_runner: Development only: executes nothing.
    """

    model_config = SettingsConfigDict(
        env_prefix="AWGP_RUNTIME_",
        secrets_dir=os.environ.get("AWGP_SECRETS_DIR"),
        extra="ignore",
    )

    broker_url: str = "ws://127.0.0.1:4100"
    state_dir: Path = Path(".awgp/runtime")
    run_dir: Path | None = None
    docker_host: str = "unix:///var/run/docker.sock"
    docker_runtime: str = "runsc-awgp"
    runtime_name: str = "runtime"
    capacity: int = Field(default=4, ge=1, le=256)
    enrolment_token: str | None = None
    guest_path: Path = Path(".awgp/cache/bin/awgp-guest")
    warrant_jwks: str | None = None
    probe_image: str = "awgp/sandbox:latest"
    containerd_socket: str | None = None
    gateway_url: str = ""
    api_url: str = ""
    warm: str = ""
    null_runner: bool = False
    log_level: str = "info"

    @property
    def base_url(self) -> str:
        """The broker's address for HTTP and WebSocket alike."""
        scheme, _, rest = self.broker_url.rstrip("/").partition("://")
        return {"ws": "http", "wss": "https"}.get(scheme, scheme) + "://" + rest

    @field_validator("warm")
    @classmethod
    def _is_readable(cls, text: str) -> str:
        read_warm(text)
        return text

    @property
    def mounts_dir(self) -> Path:
        """Where bind-mounted folders are made."""
        return (self.run_dir or self.state_dir / "mounts").resolve()
