"""Export a config for a shell or another tool. The token needs the right `export`.

eval "$(python -m examples.formatted_export env)"
"""

import sys

from config_client import ConfigClient, Format


def main(wanted: list[str]) -> None:
    with ConfigClient.from_env() as client:
        for name in wanted or [fmt.value for fmt in Format]:
            sys.stdout.write(client.get_formatted("orders", Format(name)).decode().rstrip("\n") + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
