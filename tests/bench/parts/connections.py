"""From 100 connections to 10,000, all of them asking; and what an idle one holds."""

import resource

from peers import Missing

from .questions import CAP, Peers, at_gateway, at_peer, kept

QUESTION = "4k_get"
FEW, MANY_MAX = 100, 10_000
# bare shows what the parts that the gateway is made of cost by themselves.
PEERS = ("nginx", "bare")
# Files that a server needs beside its connections.
BESIDE = 500
LIMITS = "\n".join(f"{name} = 12000" for name in (
    "connections_max", "connections_per_peer_max", "requests_in_flight_max"))


def raise_limit():
    """Connections that the limit of open files allows, once it stands as high as it may: a gateway gives
    callers half of its files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard // 2 - BESIDE


def run(b, args, report):
    many = min(MANY_MAX, raise_limit())
    if many < 10 * FEW:
        report.absent(f"hits, {MANY_MAX:,} connections", f"{FEW} connections",
                      f"the limit of open files allows {many}; ulimit -n {2 * (MANY_MAX + BESIDE)}")
        return
    gateway = b.gateway("gateway", b.vendors("vendors", 60, 2000), limits=LIMITS)
    body = kept(at_gateway(gateway, QUESTION))
    file = b.work / QUESTION
    file.write_bytes(body)
    idle(b, report, at_gateway(gateway, QUESTION), many)
    asks = {"gateway": at_gateway(gateway, QUESTION)}
    peers = Peers(b, {f"/{QUESTION}": file})
    for peer in PEERS:
        if peer not in args.peers:
            continue
        try:
            asks[peer] = at_peer(peers.port(peer), QUESTION, peer)
            idle(b, report, asks[peer], many)
        except Missing as why:
            report.absent(f"hits, {many:,} connections", peer, str(why))
    rates = {f"{name} {count}": [] for name in asks for count in (FEW, many)}
    for number in range(args.rounds + 1):
        for name, ask in asks.items():
            for count in (FEW, many):
                # The first seconds are spent on opening the connections.
                rate = b.wrk(ask, max(args.seconds, 2) if number else 1, count)
                if number:
                    rates[f"{name} {count}"].append(rate)
    report.rates["connections"] = rates
    for name in asks:
        report.compare(f"hits, {many:,} connections, of {name}", f"{FEW} connections", rates[f"{name} {many}"],
                       rates[f"{name} {FEW}"])
    for peer in PEERS:
        if peer in asks:
            for count in (FEW, many):
                report.compare(f"hits, {count:,} connections", f"{peer} GET", rates[f"gateway {count}"],
                               rates[f"{peer} {count}"])
    report.memory(f"{many:,} connections", b, list(asks), CAP)


def idle(b, report, ask, many):
    """What a connection holds that was asked something once."""
    before = b.rss(ask.server)
    with b.held(ask, many):
        each = (b.rss(ask.server) - before) / many / 1024
    target = 20.0 if ask.server == "gateway" else None
    report.add(f"KiB of an idle connection, of {many:,}", ask.server, [each], target, False)
