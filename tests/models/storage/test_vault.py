"""Sealed values: they open with our keys, for their own company and name alone."""

from __future__ import annotations

from uuid import UUID

import pytest

from models.storage.vault import Vault, VaultError

ONE, OTHER = UUID(int=1), UUID(int=2)


def test_what_is_sealed_opens_where_it_was_sealed_for() -> None:
    vault = Vault(Vault.new_key())
    sealed = vault.seal(ONE, "key", "a value")
    assert "a value" not in sealed
    assert sealed != vault.seal(ONE, "key", "a value")
    assert vault.open(ONE, "key", sealed) == "a value"


@pytest.mark.parametrize(("tenant", "name"), [(OTHER, "key"), (ONE, "other")])
def test_a_row_in_anothers_place_opens_nothing(tenant: UUID, name: str) -> None:
    vault = Vault(Vault.new_key())
    with pytest.raises(VaultError, match="sealed for another place"):
        vault.open(tenant, name, vault.seal(ONE, "key", "a value"))


def test_keys_are_changed_by_putting_a_new_one_first() -> None:
    old, new = Vault.new_key(), Vault.new_key()
    sealed = Vault(old).seal(ONE, "key", "a value")
    assert Vault(f"{new}\n{old}").open(ONE, "key", sealed) == "a value"
    with pytest.raises(VaultError, match="does not open"):
        Vault(new).open(ONE, "key", sealed)
    with pytest.raises(VaultError):
        Vault(old).open(ONE, "key", sealed[:-8] + "AAAAAAA=")
