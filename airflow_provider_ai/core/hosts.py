"""Which hosts are this machine, told from how they are written: nothing is looked up.

``127.0.0.0/8``, ``::1`` and the name ``localhost`` (RFC 6761), and nothing else: not ``0.0.0.0``, not an address in
another notation (``127.1``, ``::ffff:127.0.0.1``), not a name that may be made to mean anything.
"""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host, as it stands in a URL (an IPv6 address with or without brackets), is this machine."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    return address.is_loopback and not mapped
