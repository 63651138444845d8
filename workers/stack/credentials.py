"""Secrets of a stack: made once, kept in files of mode 0600, one folder a process with only what it may hold."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from models.services.warrant_keys import EdDsaSigner
from models.storage.vault import Vault
from workers.stack.paths import Paths
from workers.stack.ports import Ports

# What each process may hold (docs: the table of processes). INVARIANT: the warrant key is the control worker's alone.
HOLDS: dict[str, tuple[str, ...]] = {
    "api": ("database_app_url", "redis_url", "redis_tenant_key", "secret_store_key"),
    "control": (
        "database_app_url",
        "database_system_url",
        "redis_url",
        "redis_tenant_key",
        "warrant_private_key",
        "secret_store_key",
    ),
    "broker": ("database_app_url", "redis_url", "redis_tenant_key"),
    "relay": ("database_app_url", "database_system_url", "redis_url", "redis_tenant_key"),
    "gateway": ("database_app_url", "redis_url", "redis_tenant_key"),
    "upstream": (),
    "dev_issuer": ("dev_issuer_key", "dev_issuer_password"),
    "cli": ("dev_issuer_password",),
    "owner": ("database_owner_url", "redis_url", "redis_tenant_key"),
}

GIVEN: dict[str, tuple[str, ...]] = {"gateway": ("llm_upstream_key",)}
"""What an operator may put into the folder `secrets/stack`, and who gets it. INVARIANT: a provider's key is the
gateway's alone."""


@dataclass(frozen=True)
class Credentials:
    """Every secret of the stack; only the set-up sees them all."""

    postgres_superuser: str
    awgp_owner: str
    awgp_app: str
    awgp_system: str
    valkey: str
    redis_tenant_key: str
    dev_issuer_key: str
    dev_issuer_password: str
    warrant_private_key: str
    secret_store_key: str

    @classmethod
    def load_or_make(cls, paths: Paths) -> Credentials:
        """Read the kept secrets; make those that are not there yet."""
        folder = paths.secrets / "stack"
        return cls(**{name: _kept(folder / name, make) for name, make in _MAKERS.items()})

    def warrant_jwks(self) -> str:
        """The JWK set (JSON) that verifies warrants."""
        return EdDsaSigner(self.warrant_private_key).public_jwks()

    def fields(self, ports: Ports) -> dict[str, str]:
        """The values of the processes' secret settings."""

        def database(role: str, password: str) -> str:
            return f"postgresql+psycopg://{role}:{password}@127.0.0.1:{ports.postgres}/awgp"

        return {
            "database_app_url": database("awgp_app", self.awgp_app),
            "database_system_url": database("awgp_system", self.awgp_system),
            "database_owner_url": database("awgp_owner", self.awgp_owner),
            "redis_url": f"redis://awgp:{self.valkey}@127.0.0.1:{ports.valkey}/0",
            "redis_tenant_key": self.redis_tenant_key,
            "dev_issuer_key": self.dev_issuer_key,
            "dev_issuer_password": self.dev_issuer_password,
            "warrant_private_key": self.warrant_private_key,
            "secret_store_key": self.secret_store_key,
        }

    def hand_out(self, paths: Paths, ports: Ports) -> None:
        """Write each process's folder anew: what it holds, and nothing that it no longer may."""
        values = self.fields(ports)
        for process, held in HOLDS.items():
            folder = private_folder(paths.secrets / process)
            wanted = {f"awgp_{name}": values[name] for name in held}
            for name in GIVEN.get(process, ()):
                given = paths.secrets / "stack" / name
                if given.exists():
                    wanted[f"awgp_{name}"] = given.read_text().strip()
            for stale in set(folder.iterdir()) - {folder / name for name in wanted}:
                stale.unlink()
            for name, value in wanted.items():
                write_private(folder / name, value)


def private_folder(folder: Path) -> Path:
    """A folder that only we may enter."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    return folder


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.replace(path)


def _kept(path: Path, make: Callable[[], str]) -> str:
    if not path.exists():
        private_folder(path.parent.parent)
        private_folder(path.parent)
        write_private(path, make())
    return path.read_text()


def _password() -> str:
    return secrets.token_urlsafe(32)


def _ed25519() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


_MAKERS: dict[str, Callable[[], str]] = {
    "postgres_superuser": _password,
    "awgp_owner": _password,
    "awgp_app": _password,
    "awgp_system": _password,
    "valkey": _password,
    "redis_tenant_key": _password,
    "dev_issuer_key": _ed25519,
    "dev_issuer_password": _password,
    "warrant_private_key": _ed25519,
    "secret_store_key": Vault.new_key,
}
