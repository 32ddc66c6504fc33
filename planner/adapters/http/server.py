"""Serves the page, the API, `/metrics` and health from a thread of its own. Opens a socket."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import uvicorn

from planner.adapters.http.app import create_app
from planner.adapters.http.site import Site
from planner.errors import InputError

PORT_MOST = 65_535
MEND = "give --listen HOST:PORT or :PORT, such as 127.0.0.1:8080"

# What is still being answered when the process ends is waited for this long [s].
SHUTDOWN_S = 2


@contextlib.contextmanager
def serve(listen: str, site: Site) -> Iterator[str]:
    """Serve a site until the block ends.

    Parameters
    ----------
    listen
        Where, `HOST:PORT`; without a host on all interfaces, with port 0 on one that is free.
    site
        What is served.

    Yields
    ------
    str
        The address as a URL.

    Notes
    -----
    InputError comes from `listening_socket`, before anything is served.
    """
    listener = listening_socket(listen)
    config = uvicorn.Config(
        create_app(site),
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True
    )
    thread.start()
    try:
        yield _url(listener)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def listening_socket(listen: str) -> socket.socket:
    """Return a socket that listens.

    Raises
    ------
    InputError
        If the address is unknown or taken, or needs a right that the process lacks.
    """
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isascii() or not port.isdigit() or int(port) > PORT_MOST:
        raise InputError(f"--listen: {listen}: no port; legal: 0 to {PORT_MOST}: {MEND}")
    try:
        if not host:
            return _on_all_interfaces(int(port))
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, int(port)), family=family)
    except socket.gaierror:
        raise InputError(f"--listen: {listen}: {host!r} is no known host: {MEND}") from None
    except OSError as error:
        # The error's own text repeats the address.
        why = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"--listen: {listen}: {why}: {MEND}") from None


def _on_all_interfaces(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("0.0.0.0", port))


def _url(listener: socket.socket) -> str:
    """Return the URL under which this machine reaches the socket."""
    host, port = listener.getsockname()[:2]
    host = {"::": "localhost", "0.0.0.0": "localhost"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
