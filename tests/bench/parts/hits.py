"""Hits beside the peers' hits: the same bytes from everyone, GET and POST."""

from peers import Missing

from .questions import CAP, HITS, Peers, at_gateway, at_peer, gateway_with_bodies, paired, same_bytes

# hit → [(peer, how it is asked, least ratio wanted or None)]
TARGETS = {
    "4k_get": [("nginx", "GET", 1.25), ("varnish", "GET", 2.0), ("bare", "GET", 0.85), ("haproxy", "GET", None),
               ("caddy", "GET", None), ("envoy", "GET", None)],
    "12k_get": [("nginx", "GET", 1.15), ("varnish", "GET", None), ("bare", "GET", None), ("haproxy", "GET", None),
                ("caddy", "GET", None), ("envoy", "GET", None)],
    "12k_post": [("nginx", "POST", 1.0), ("nginx", "GET", 1.15), ("bare", "POST", None)],
    "119k_post": [("nginx", "POST", 1.0), ("nginx", "GET", 1.0), ("varnish", "GET", None), ("bare", "POST", None),
                  ("haproxy", "GET", None), ("caddy", "GET", None), ("envoy", "GET", None)],
}


def run(b, args, report):
    gateway, files = gateway_with_bodies(b, report)
    peers = Peers(b, files)
    for name in HITS:
        if args.only and name not in args.only:
            continue
        runs, lines = {"gateway": at_gateway(gateway, name)}, []
        for peer, how, target in TARGETS[name]:
            if peer not in args.peers:
                continue
            try:
                ask = at_peer(peers.port(peer), name, peer, how)
            except Missing as why:
                report.absent(f"hit {name}", f"{peer} {how}", str(why))
                continue
            same_bytes(ask, files[f"/{name}"].read_bytes())
            runs[f"{peer} {how}"] = ask
            lines.append((f"{peer} {how}", target))
        rates = paired(b, args, runs)
        report.rates[f"hit {name}"] = rates
        for against, target in lines:
            report.compare(f"hit {name}", against, rates["gateway"], rates[against], target)
    report.memory("hits", b, ["gateway", *peers.ports], CAP)
