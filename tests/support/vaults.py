"""A vault as a service has it: with the keys of a store, here of one that is nowhere."""

from __future__ import annotations

from datetime import datetime, timezone

from config_service.security.at_rest import Vault

NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)


def new_vault(master_key: bytes = bytes(range(32))) -> Vault:
    """Return a vault that holds a chain key, 1, and an active data key, 2."""
    vault = Vault(master_key)
    vault.hold(vault.master_keys.first(NOON, master_key, before=False))
    return vault


class HeldKeys:
    """Stands in for what has a vault hold keys, where no store has any."""

    async def refresh(self) -> None:
        """Do nothing."""

    async def hold(self, *_sealed: bytes | None) -> None:
        """Do nothing."""
