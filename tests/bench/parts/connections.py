"""From 100 connections to 10,000, all of them asking; and what an idle one holds."""

import resource

from peers import Missing

from .questions import CAP, Peers, at_gateway, at_peer, kept

QUESTION = "4k_get"
FEW, MANY = 100, 10_000
# Files that a server needs beside its connections.
BESIDE = 500
LIMITS = "connections_max = 12000\nrequests_in_flight_max = 12000"


def raise_limit():
    """Connections that the limit of open files allows, once it stands as high as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - BESIDE


def run(b, args, report):
    allowed = raise_limit()
    if allowed < MANY:
        report.absent(f"hits, {MANY:,} connections", f"{FEW} connections",
                      f"the limit of open files allows {allowed}; ulimit -n {MANY + BESIDE}")
        return
    gateway = b.gateway("gateway", b.vendors("vendors", 60, 2000), limits=LIMITS)
    body = kept(at_gateway(gateway, QUESTION))
    file = b.work / QUESTION
    file.write_bytes(body)
    idle(b, report, at_gateway(gateway, QUESTION))
    asks = {"gateway": at_gateway(gateway, QUESTION)}
    if "nginx" in args.peers:
        try:
            asks["nginx"] = at_peer(Peers(b, {f"/{QUESTION}": file}).port("nginx"), QUESTION, "nginx")
            idle(b, report, asks["nginx"])
        except Missing as why:
            report.absent(f"hits, {MANY:,} connections", "nginx", str(why))
    rates = {f"{name} {count}": [] for name in asks for count in (FEW, MANY)}
    for number in range(args.rounds + 1):
        for name, ask in asks.items():
            for count in (FEW, MANY):
                # The first seconds of so many connections are spent on opening them.
                rate = b.wrk(ask, max(args.seconds, 2) if number else 1, count)
                if number:
                    rates[f"{name} {count}"].append(rate)
    report.rates["connections"] = rates
    for name in asks:
        report.compare(f"hits, {MANY:,} connections, of {name}", f"{FEW} connections", rates[f"{name} {MANY}"],
                       rates[f"{name} {FEW}"])
    if "nginx" in asks:
        report.compare(f"hits, {MANY:,} connections", "nginx GET", rates[f"gateway {MANY}"], rates[f"nginx {MANY}"])
    report.memory(f"{MANY:,} connections", b, list(asks), CAP)


def idle(b, report, ask):
    """What a connection holds that was asked something once."""
    before = b.rss(ask.server)
    with b.held(ask, MANY):
        each = (b.rss(ask.server) - before) / MANY / 1024
    target = 20.0 if ask.server == "gateway" else None
    report.add(f"KiB of an idle connection, of {MANY:,}", ask.server, [each], target, False)
