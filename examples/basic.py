"""Fetch a config once, as a dataclass and as a dict.

Set CONFIG_SERVICE_HOST, CONFIG_SERVICE_TOKEN and CONFIG_SERVICE_KEY; `config-service dev` prints all three.
"""

from dataclasses import dataclass

from config_client import ConfigClient, NotFoundError


@dataclass
class Database:
    host: str
    port: int = 5432


@dataclass
class Orders:
    database: Database
    log_level: str = "info"


def main() -> None:
    with ConfigClient.from_env() as client:
        orders = client.get("orders", Orders)
        print(f"connecting to {orders.database.host}:{orders.database.port}, logging at {orders.log_level}")
        print("the same as a dict:", client.get_raw("orders"))
        for info in client.list():
            print(f"{info.name}: updated at {info.updated_at:%Y-%m-%d %H:%M:%S %Z}")
        try:
            client.get_raw("no-such-config")
        except NotFoundError as error:
            print("as expected:", error)


if __name__ == "__main__":
    main()
