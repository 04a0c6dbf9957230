"""Fetch a config into a pydantic model, whose rules the document must keep."""

from pydantic import BaseModel, Field

from config_client import ConfigClient, UnmarshalError


class Database(BaseModel):
    host: str
    port: int = Field(default=5432, ge=1, le=65535)


class Orders(BaseModel):
    database: Database
    log_level: str = "info"


class Strict(BaseModel):
    log_level: int


def main() -> None:
    with ConfigClient.from_env() as client:
        print(client.get("orders", Orders).model_dump_json(indent=2))
        try:
            client.get("orders", Strict)
        except UnmarshalError as error:
            print("refused:", error)


if __name__ == "__main__":
    main()
