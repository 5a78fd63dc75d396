"""Hits while the vendor is dead, at a fixed rate, beside a gateway whose vendor lives."""

import time

from servers import exchange

from .questions import CAP, at_gateway, kept

# Soon past freshness and past the time in which one refresh runs behind the answers.
SHORT_LIVED = """
[customers]
fresh = "1s"
stale = "1s"
on_error = "1h"
"""
QUESTION = "4k_get"


def run(b, args, report):
    ports = {}
    for name, extra in (("gateway", ""), ("gateway_dead", ""), ("gateway_dead_old", SHORT_LIVED)):
        vendors = b.vendors(f"vendors_of_{name}", 60, 2000)
        ports[name] = b.gateway(name, vendors, extra)
        kept(at_gateway(ports[name], QUESTION, name))
        if name != "gateway":
            # As by a power failure: no farewell on open connections.
            b.procs[f"vendors_of_{name}"].kill()
            b.procs[f"vendors_of_{name}"].wait()
    time.sleep(3)
    # The first to ask after the stale time finds out that the vendor is dead.
    status, headers, _ = exchange(at_gateway(ports["gateway_dead_old"], QUESTION, "gateway_dead_old"))
    report.facts["dead vendor, old entry"] = f"{status} {headers.get('Cache-Status')}"
    found = {name: [] for name in ports}
    for number in range(args.rounds + 1):
        for name, port in ports.items():
            ask = at_gateway(port, QUESTION, name)
            said = b.load(port, "rate", args.rate, args.seconds if number else 1, args.connections, ask.method,
                          ask.target)
            if said["errors"]:
                report.absent("p99 of hits, vendor dead", name, f"{said['errors']} of {said['requests']} failed")
                return
            if number:
                found[name].append(said)
    report.rates["dead"] = found
    p99 = {name: [said["p99_us"] for said in rounds] for name, rounds in found.items()}
    for name, what in (("gateway_dead", "fresh entries"), ("gateway_dead_old", "entries past their stale time")):
        report.add(f"p99 of hits, vendor dead, {what}", "vendor alive",
                   [ours / its for ours, its in zip(p99[name], p99["gateway"])], 1.25, False)
    report.memory("dead vendor", b, ["gateway_dead_old"], CAP)

