"""An example or two for every command, shown at the end of its ``--help``. A test parses each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import typer

EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    "keygen": ("export CONFIG_SERVER_MASTER_KEY=$(config-service keygen)",),
    "init": ("config-service init", "config-service init --store-url sqlite:////var/lib/config/config.db"),
    "serve": ("config-service serve", "config-service serve --host 0.0.0.0 --port 8080"),
    "dev": ("config-service dev --data ./dev-store",),
    "publish": ("config-service publish orders orders.json -e prod --if-match 3", "config-service publish orders -"),
    "show": ("config-service show orders -e prod", "config-service show orders --format yaml --version 2"),
    "list": ("config-service list --json",),
    "history": ("config-service history orders -e prod",),
    "rollback": ("config-service rollback orders 2 -e prod",),
    "delete": ("config-service delete orders -e staging --yes",),
    "diff": ("config-service diff orders", "config-service diff orders --from 2 --to running@prod"),
    "draft show": ("config-service draft show orders", "config-service draft show orders --document"),
    "draft set": ("config-service draft set orders orders.json --diff",),
    "draft patch": ("config-service draft patch orders change.json --diff",),
    "draft discard": ("config-service draft discard orders --yes",),
    "draft validate": ("config-service draft validate orders",),
    "draft publish": (
        "config-service draft publish orders --if-match 3",
        "config-service draft publish orders=3 billing --valid-from 2030-01-31T12:00:00Z",
    ),
    "draft revert": ("config-service draft revert orders --version 2",),
    "schedule list": ("config-service schedule list --json",),
    "schedule cancel": ("config-service schedule cancel orders -e prod --yes",),
    "savepoint set": ("config-service savepoint set orders release-1 -e prod",),
    "savepoint list": ("config-service savepoint list orders --json",),
    "savepoint remove": ("config-service savepoint remove orders release-1 --yes",),
    "archive": (
        "config-service archive --before 2026-01-01 --dry-run",
        "config-service archive --before 2026-01-01 --name 'orders-*' --to old.jsonl --yes",
    ),
    "schema show": ("config-service schema show orders --document",),
    "schema set": ("config-service schema set orders orders.schema.json",),
    "schema remove": ("config-service schema remove orders --yes",),
    "schema history": ("config-service schema history orders",),
    "watchers": ("config-service watchers --config orders", "config-service watchers --behind --json"),
    "token create": (
        "config-service token create orders -e prod --export",
        "config-service token create ci --scope 'orders-*@staging:read,write' --expires-in 90d",
    ),
    "token list": ("config-service token list",),
    "token rotate-key": ("config-service token rotate-key 7 --overlap 24h",),
    "token revoke": ("config-service token revoke 7",),
    "keys list": ("config-service keys list",),
    "keys rotate": ("config-service keys rotate && config-service keys reseal",),
    "keys reseal": ("config-service keys reseal",),
    "keys rotate-master": ("config-service keys rotate-master",),
    "audit list": (
        "config-service audit list --name orders --since 2026-01-31T00:00:00+00:00",
        "config-service audit list --kind token_created --json",
    ),
    "audit head": ("config-service audit head >> /somewhere/else/anchors",),
    "audit verify": (
        'config-service audit verify --anchor "$(tail -n 1 /somewhere/else/anchors)"',
        "config-service audit verify --store-url sqlite:///config.db",
    ),
    "export-store": (
        "config-service export-store store.export --sealed --key-file export.key",
        "config-service export-store - --plain | jq .",
    ),
    "import": ("config-service import store.export --key-file export.key --dry-run",),
    "backup": ("config-service backup store.backup",),
    "restore": ("config-service restore store.backup --store-url sqlite:///new.db",),
}
"""By command, as it is typed."""


def add_examples(program: typer.Typer, path: str = "") -> None:
    """Show the examples of every command of ``program``, and of the groups below it, at the end of its help."""
    for command in program.registered_commands:
        shown = EXAMPLES.get(f"{path}{command.name}", ())
        # Paragraphs, because within one lines are joined; brackets would be markup.
        lines = [f"[dim]$[/dim] {line.replace('[', chr(92) + '[')}" for line in shown]
        command.epilog = "\n\n".join(["[bold]Examples[/bold]", *lines]) if shown else None
    for group in program.registered_groups:
        if group.typer_instance is not None:
            add_examples(group.typer_instance, f"{path}{group.name} ")
