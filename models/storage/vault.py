"""Encryption of what a company entrusts to us: Fernet (AES-CBC, HMAC) under keys that the database never sees."""

from __future__ import annotations

import json
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class VaultError(Exception):
    """What is stored does not open: another key, or a row that was put in another's place."""


class Vault:
    """Seals and opens values.

    INVARIANT: a sealed value opens only for the company and under the name that it was sealed for, so a row that is
    copied elsewhere is worth nothing there.

    Args:
        keys: Fernet keys, separated by white space; the first seals, all open (to change one: put the new one first).
    """

    def __init__(self, keys: str) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys.split()])

    @staticmethod
    def new_key() -> str:
        """A fresh key."""
        return Fernet.generate_key().decode()

    def seal(self, tenant_id: UUID, name: str, value: str) -> str:
        """The ciphertext."""
        document = json.dumps({"tenant": str(tenant_id), "name": name, "value": value})
        return self._fernet.encrypt(document.encode()).decode()

    def open(self, tenant_id: UUID, name: str, ciphertext: str) -> str:
        """The value.

        Raises:
            VaultError: No key of ours opens it, or it is another's.
        """
        try:
            document = json.loads(self._fernet.decrypt(ciphertext.encode()))
        except (InvalidToken, ValueError) as error:
            raise VaultError(f"the secret {name} does not open with the keys of this installation") from error
        if (document["tenant"], document["name"]) != (str(tenant_id), name):
            raise VaultError(f"what is stored as the secret {name} was sealed for another place")
        return str(document["value"])
