"""The tail at a fixed rate: requests come when they are due, whatever became of those before."""

import statistics

from peers import Missing

from .questions import CAP, Peers, at_gateway, at_peer, gateway_with_bodies

QUESTION = "12k_post"
QUANTILES = {"p50": "p50_us", "p99": "p99_us", "p99.9": "p999_us"}


def run(b, args, report):
    gateway, files = gateway_with_bodies(b, report)
    peers = Peers(b, files)
    asks = {"gateway": at_gateway(gateway, QUESTION)}
    for peer in ("nginx", "bare", "varnish", "haproxy", "caddy", "envoy"):
        if peer not in args.peers:
            continue
        how = "POST" if peer in ("nginx", "bare") else "GET"
        try:
            asks[peer] = at_peer(peers.port(peer), QUESTION, peer, how)
        except Missing as why:
            report.absent(f"tail at {args.rate:,} a second", peer, str(why))
    found = {name: [] for name in asks}
    for number in range(args.rounds + 1):
        for name, ask in asks.items():
            # A thousandth of the requests must be some dozens.
            seconds = max(args.seconds, 2) if number else 1
            body = [ask.body] if ask.body else []
            said = b.load(ask.port, "rate", args.rate, seconds, args.connections, ask.method, ask.target, *body)
            if number:
                found[name].append(said)
    report.rates["tail"] = found
    for name, rounds in found.items():
        report.facts[f"tail at {args.rate:,} a second, {name}"] = ", ".join(
            [f"{word} {statistics.median(said[key] for said in rounds):.0f} us" for word, key in QUANTILES.items()]
            + [f"p99.9 from sending {statistics.median(said['sent_p999_us'] for said in rounds):.0f} us",
               f"{sum(said['errors'] for said in rounds)} of {sum(said['requests'] for said in rounds)} failed"])
    for peer in asks:
        if peer == "gateway":
            continue
        for word, key in QUANTILES.items():
            report.add(f"{word} at {args.rate:,} a second, open loop", peer,
                       [ours[key] / its[key] for ours, its in zip(found["gateway"], found[peer])], None, False)
    report.memory("the open loop", b, list(asks), CAP)
