"""By which names a server of ours may be asked.

A page from elsewhere can make a browser ask this machine under a name of the page's own ("DNS rebinding"),
and read the answer. Such a request carries that name, so a server answers only to its own.
"""

import re
import socket

_EVERYWHERE = ("", "0.0.0.0", "::")


def host_names(host: str) -> list[str]:
    """Of a server that listens at ``host``, as they stand in a URL."""
    names = ["localhost", "127.0.0.1", "::1", host]
    if host in _EVERYWHERE:
        names += [socket.gethostname(), socket.getfqdn()]
        names += sorted({str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None)})
    return list(dict.fromkeys(f"[{name}]" if ":" in name else name for name in names if name))


def is_ours(header: str, host: str) -> bool:
    """Whether the value of a request's ``Host`` header is one of them, at any port: tunnels change it."""
    return re.sub(r":\d+$", "", header).lower() in map(str.lower, host_names(host))
