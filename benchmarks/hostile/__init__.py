"""Servers that do what servers do at three in the morning, each in a process of its own on 127.0.0.1.

    with HostileServer("drips-headers") as server:
        call(server.url)
        assert server.stats()["requests"] == 1

    with hanging_dns() as dns:
        subprocess.run(dns.command([sys.executable, "-m", "something", f"http://{dns.HOST}"]))

`SCENARIOS` says of each what it does, whether a client without a total deadline hangs on it, and what a degraded answer
may give as its reason. What is claimed of a client is counted here, at the far end.
"""

from __future__ import annotations

from benchmarks.hostile.dns import HangingDns, hanging_dns
from benchmarks.hostile.scenarios import HANGS, SCENARIOS, Scenario
from benchmarks.hostile.server import HostileServer, hostile_servers

__all__ = ["HANGS", "SCENARIOS", "HangingDns", "HostileServer", "Scenario", "hanging_dns", "hostile_servers"]
