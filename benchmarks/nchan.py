"""nginx with nchan as the peer: one worker, a prefix of its own, started and stopped here.

Knows nginx's configuration. Publishing is a POST whose body becomes the data of an event; subscribing is an event
stream. Both are authenticated by comparing the token's header, as cheaply as nginx can.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from .machine import SkippedError, children

HOST: Final = "127.0.0.1"
PUBLISH_PATH: Final = "/publish"
SUBSCRIBE_PATH: Final = "/subscribe"
START_SECONDS: Final = 10.0
_MODULES: Final = (
    Path("/usr/lib/nginx/modules/ngx_nchan_module.so"),
    Path("/usr/lib64/nginx/modules/ngx_nchan_module.so"),
    Path("/usr/share/nginx/modules/ngx_nchan_module.so"),
)
_REMEDY: Final = "on Debian: apt-get install --no-install-recommends nginx libnginx-mod-nchan"

_CONFIGURATION: Final = """
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {prefix}/nginx.pid;
error_log {prefix}/error.log warn;
events {{
    worker_connections {files};
}}
http {{
    access_log off;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    keepalive_requests 1000000;
    map_hash_max_size 65536;
    map_hash_bucket_size 128;
    map $http_x_service_token $known {{
        default 0;
{tokens}
    }}
    server {{
        listen {host}:{port};
        location = {publish} {{
            if ($known = 0) {{ return 403; }}
            nchan_publisher;
            nchan_channel_id bench;
        }}
        location = {subscribe} {{
            if ($known = 0) {{ return 403; }}
            nchan_subscriber eventsource;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
            nchan_eventsource_ping_interval {ping};
        }}
    }}
}}
"""


class NchanProcess:
    """One nginx in ``directory`` that knows ``tokens``; as a context manager it is started and stopped.

    ``ping``: seconds between two heartbeats of a stream. Raises SkippedError when nginx or nchan is not installed.
    """

    def __init__(self, directory: Path, tokens: Sequence[str], connections: int, ping: int) -> None:
        program, module = find_nchan()
        self._directory = directory
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port: Final[int] = free.getsockname()[1]
        configuration = _CONFIGURATION.format(
            module=module,
            files=connections + 256,
            prefix=directory,
            tokens="\n".join(f'        "{token}" 1;' for token in tokens),
            host=HOST,
            port=self.port,
            publish=PUBLISH_PATH,
            subscribe=SUBSCRIBE_PATH,
            ping=ping,
        )
        (directory / "nginx.conf").write_text(configuration)
        # Started as root, nginx gives its worker to somebody who must be able to come here.
        directory.chmod(0o755)
        self._command = [program, "-p", str(directory), "-c", str(directory / "nginx.conf")]
        self._master: subprocess.Popen[bytes] | None = None
        self.worker = 0
        """The process that serves."""

    def __enter__(self) -> NchanProcess:
        self._master = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._master.poll() is None:
            workers = children(self._master.pid)
            if len(workers) == 1 and self._listens():
                (self.worker,) = workers
                return self
            time.sleep(0.02)
        self.stop()
        log = self._directory / "error.log"
        raise SkippedError(f"nginx did not start: {log.read_text().strip()[-300:] if log.exists() else 'no log'}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End nginx."""
        if self._master is None:
            return
        self._master.send_signal(signal.SIGTERM)
        try:
            self._master.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            for worker in children(self._master.pid):
                os.kill(worker, signal.SIGKILL)
            self._master.kill()
            self._master.wait()
        self._master = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


def find_nchan() -> tuple[str, Path]:
    """Return nginx and nchan's module. Raises SkippedError, which says how to get them."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise SkippedError(f"nginx is not installed; {_REMEDY}")
    for module in _MODULES:
        if module.exists():
            return program, module
    raise SkippedError(f"nginx has no module nchan; {_REMEDY}")
