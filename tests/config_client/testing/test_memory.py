"""What the in-memory service holds: versions, revisions, epochs and tokens; and who is told what."""

from __future__ import annotations

import pytest

from config_client.crypto import key_id
from config_client.protocol import Position
from config_client.testing import _memory
from config_client.testing._accounts import Account, Scope
from config_client.testing._faults import MisuseError
from config_client.testing._memory import ConfigKey, Memory
from config_client.testing._streams import Sealed

ORDERS = ConfigKey("orders", "default", "main")


def test_versions_count_per_config_and_revisions_over_all() -> None:
    """A version is numbered within its config, a revision within the epoch; a tombstone takes both."""
    memory = Memory()
    memory.mint("default", ())
    first, _ = memory.publish(ORDERS, b"1", 1)
    other, _ = memory.publish(ORDERS._replace(label="x"), b"1", 1)
    second, changed = memory.publish(ORDERS, b"2", 1)
    assert (first.number, other.number, second.number, changed) == (1, 1, 2, True)
    assert [each.position.revision for each in (first, other, second)] == [3, 4, 5]
    assert memory.publish(ORDERS, b"2", 1) == (second, False)
    gone = memory.delete(ORDERS, 1)
    assert (gone.number, gone.deleted, memory.version(ORDERS)) == (3, True, None)
    assert memory.newest(ORDERS) is gone
    again, changed = memory.publish(ORDERS, b"2", 1)
    assert (again.number, changed) == (4, True)


def test_rolling_back_and_deleting_need_something_to_work_on() -> None:
    """The error names the config and the versions that there are."""
    memory = Memory()
    with pytest.raises(MisuseError, match=r"orders \(default, main\): nothing is running"):
        memory.delete(ORDERS, 1)
    memory.publish(ORDERS, b"1", 1)
    memory.delete(ORDERS, 1)
    for number in (0, -1, 2, 3):
        with pytest.raises(MisuseError, match=rf"no version {number} to roll back to; there are \[1\]"):
            memory.roll_back(ORDERS, number, 1)
    version, changed = memory.roll_back(ORDERS, 1, 1)
    assert (version.number, version.content, changed) == (3, b"1", True)


def test_the_replay_is_exact_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything after a revision that was reached and is not too long ago; otherwise nothing at all."""
    monkeypatch.setattr(_memory, "REPLAYED", 3)
    memory = Memory()
    memory._changes = type(memory._changes)(maxlen=3)
    for number in range(5):
        memory.publish(ORDERS, b"%d" % number, 1)
    newest = memory.revision
    assert [each.number for each in memory.since(newest - 3, "orders") or ()] == [3, 4, 5]
    assert memory.since(newest, "orders") == []
    assert memory.since(newest - 4, "orders") is None
    assert memory.since(newest + 1, "orders") is None


def test_a_restore_begins_a_later_epoch_with_the_old_revisions() -> None:
    """Even twice within a millisecond; what came after the backup is gone, tokens included."""
    memory = Memory()
    account = memory.mint("default", ())
    memory.publish(ORDERS, b"1", 1)
    backup = memory.backup()
    revision, epochs = memory.revision, [memory.epoch]
    memory.publish(ORDERS, b"2", 1)
    later = memory.mint("default", ())
    for _ in range(3):
        memory.restore(backup)
        epochs.append(memory.epoch)
    assert epochs == sorted(set(epochs))
    assert memory.position == Position(memory.epoch, revision)
    newest = memory.newest(ORDERS)
    assert newest is not None
    assert (newest.content, newest.position.epoch) == (b"1", memory.epoch)
    assert memory.authenticate(account.secret) == account
    assert memory.authenticate(later.secret) is None
    assert memory.since(revision, "orders") == []


def test_only_the_secret_of_a_valid_token_proves_it() -> None:
    """No secret, an unknown one, and that of a revoked token prove nothing."""
    memory = Memory()
    account = memory.mint("default", ())
    assert memory.authenticate(account.secret) == account
    for secret in (None, "", "cst_unknown", account.secret + "x", "\udcff"):
        assert memory.authenticate(secret) is None
    memory.revoke(account)
    assert memory.authenticate(account.secret) is None


def test_scopes_are_globs_and_deny_by_default() -> None:
    """Rights are independent, and hold where both globs match."""
    account = Account.new(2, "default", ("orders-*@prod:read,export", "pay?@*:read"))
    assert account.may("read", "orders-eu", "prod")
    assert account.may("export", "orders-eu", "prod")
    assert not account.may("read", "orders-eu", "staging")
    assert not account.may("export", "pay1", "prod")
    assert account.may_anywhere("read", "pay1")
    assert not account.may_anywhere("read", "other")
    assert not Account.new(3, "default", ()).may_anywhere("read", "orders-eu")


@pytest.mark.parametrize(
    "text", ["", "orders", "orders@prod", "orders@prod:", "orders@prod:fly", "a b@c:read", "@:read"]
)
def test_a_scope_that_is_none_is_refused(text: str) -> None:
    """The error shows how scopes are spelled."""
    with pytest.raises(MisuseError, match="configs@environments:right,right"):
        Scope.parse(text)


def test_the_key_is_chosen_by_what_the_client_holds() -> None:
    """Who does not say gets the oldest, others the newest that they hold, and the newest of all if they hold none."""
    account = Account.new(2, "default", ())
    old = account.keys[0]
    account = account.rekeyed(overlap=True)
    new = account.keys[0]
    assert account.keys == (new, old)
    assert account.key_for(None) == old
    assert account.key_for({key_id(old)}) == old
    assert account.key_for({key_id(old), key_id(new)}) == new
    assert account.key_for({"0" * 16}) == new
    assert account.retired().keys == (new,)
    assert old not in account.rekeyed(overlap=False).keys


def test_each_version_is_sealed_once_per_key_and_format() -> None:
    """The same bytes are served to everybody, and what is kept is bounded."""
    memory, sealed, key = Memory(), Sealed(), bytes(32)
    version, _ = memory.publish(ORDERS, b"{}", 1)
    payloads = [sealed.payload(version, key, encoding) for encoding in (1, 2)]
    assert payloads == [sealed.payload(version, key, encoding) for encoding in (1, 2)]
    assert sealed.payload(version, bytes(31) + b"\1", 1) != payloads[0]
    for number in range(1100):
        sealed.payload(memory.publish(ORDERS, b'{"n": %d}' % number, 1)[0], key, 1)
    assert len(sealed._kept) == 1024
    assert sealed.payload(version, key, 1) != payloads[0]


def test_documents_secrets_and_keys_stay_out_of_reprs() -> None:
    """Neither a version, a token, its credentials nor a backup shows them."""
    memory = Memory()
    account = memory.mint("default", ())
    version, _ = memory.publish(ORDERS, b'{"password": "canary"}', 1)
    for one in (version, account, account.credentials, memory.backup()):
        assert "canary" not in repr(one)
        assert account.secret not in repr(one)
        assert account.keys[0].hex() not in repr(one)
