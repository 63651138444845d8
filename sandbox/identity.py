"""Who this runtime is: a key it made itself, and the names it was given for it."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sandbox.link.messages import LINK_AUDIENCE, EnrolResponse
from sandbox.run_folder import write_durably


@dataclass(frozen=True)
class Identity:
    """An enrolled runtime."""

    names: EnrolResponse
    key: Ed25519PrivateKey

    def prove(self, nonce: bytes) -> str:
        """Signs a challenge; base64."""
        return base64.b64encode(self.key.sign(nonce + LINK_AUDIENCE)).decode()


def own_key(state_dir: Path) -> Ed25519PrivateKey:
    """Returns the key in the state folder, made at first; it never leaves it (mode 0600)."""
    path = state_dir / "key.pem"
    if path.exists():
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        return key
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = os.umask(0o077)
    try:
        write_durably(path, pem)
    finally:
        os.umask(before)
    return key


def public_key_text(key: Ed25519PrivateKey) -> str:
    """Returns the raw public key in base64."""
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode()


def load_names(state_dir: Path) -> EnrolResponse | None:
    """Returns the names given at enrolment, if there was one."""
    path = state_dir / "identity.json"
    return EnrolResponse.model_validate_json(path.read_bytes()) if path.exists() else None


def save_names(state_dir: Path, names: EnrolResponse) -> None:
    """Remembers the enrolment."""
    write_durably(state_dir / "identity.json", names.model_dump_json().encode())
