"""Compressed hits. Every coded body is decoded and held against the plain one before it counts."""

import gzip
import subprocess
import time

from peers import Missing
from servers import fail, fetch

from .questions import CAP, Ask, Peers, at_gateway, at_peer, gateway_with_bodies, paired

# hit → {coding: [(peer, its coding, least ratio wanted or None)]}
TARGETS = {
    "4k_get": {"gzip": [("nginx", "gzip", None)]},
    "12k_post": {"gzip": [("nginx", "gzip", None), ("varnish", "gzip", None)]},
    "119k_post": {
        "gzip": [("nginx", "gzip", 20.0), ("varnish", "gzip", None), ("caddy", "gzip", None), ("envoy", "gzip", None)],
        "br": [("nginx", "gzip", None), ("envoy", "br", None)],
        "zstd": [("nginx", "gzip", None), ("caddy", "zstd", None), ("envoy", "zstd", None)],
    },
}
# A coded variant is made beside the requests; it must be there within this time.
MADE_WITHIN_S = 5


def decoded(coding, body):
    if coding == "gzip":
        return gzip.decompress(body)
    command = {"br": ["brotli", "-dc"], "zstd": ["zstd", "-dcq"]}[coding]
    return subprocess.run(command, input=body, capture_output=True, check=True).stdout


def coded(ask, accept):
    return Ask(ask.server, ask.port, ask.method, ask.target, ask.body, accept)


def warm(ask, plain):
    """Asks until the answer comes coded, and checks it; the coded size, or `None`."""
    until = time.monotonic() + MADE_WITHIN_S
    while True:
        body, coding = fetch(ask)
        if coding == ask.accept:
            if decoded(coding, body) != plain:
                fail(f"{ask.server}'s {coding} of {ask.target} is not the plain answer")
            return len(body)
        if time.monotonic() > until:
            return None
        time.sleep(0.02)


def run(b, args, report):
    gateway, files = gateway_with_bodies(b, report)
    peers = Peers(b, files, coded=True)
    for name, by_coding in TARGETS.items():
        if args.only and name not in args.only:
            continue
        plain = files[f"/{name}"].read_bytes()
        for coding, against in by_coding.items():
            what = f"hit {name}, {coding}"
            against = [entry for entry in against if entry[0] in args.peers]
            runs, lines = {"gateway": coded(at_gateway(gateway, name), coding)}, []
            size = warm(runs["gateway"], plain)
            if size is None:
                for peer, its, _ in against:
                    report.absent(what, f"{peer} {its}", f"not coded: the gateway answers no {coding}")
                continue
            report.facts[f"bytes of {name} in {coding}, of the gateway"] = size
            for peer, its, target in against:
                try:
                    ask = coded(at_peer(peers.port(peer), name, peer), its)
                except Missing as why:
                    report.absent(what, f"{peer} {its}", str(why))
                    continue
                size = warm(ask, plain)
                if size is None:
                    report.absent(what, f"{peer} {its}", f"the peer answers no {its}")
                    continue
                report.facts[f"bytes of {name} in {its}, of {peer}"] = size
                runs[f"{peer} {its}"] = ask
                lines.append((f"{peer} {its}", target))
            if not lines:
                continue
            rates = paired(b, args, runs)
            report.rates[what] = rates
            for peer, target in lines:
                report.compare(what, peer, rates["gateway"], rates[peer], target)
    report.memory("coded hits", b, ["gateway", *peers.ports], CAP)

