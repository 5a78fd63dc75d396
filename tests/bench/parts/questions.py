"""The questions that are asked, and who is asked them."""

from peers import Missing
from servers import LOAD_CORE, SERVER_CORE, Ask, fail, fetch

SEARCH = "/v2/cases/msp/search"
RANGE = '"date_range":{"start":"2026-01-01","end":"2026-06-30"}'
SEVEN = "id,name,cost_impact,realized_savings,integration_types,users_number,active_workflows"
# The bounds of what a gateway with the default settings holds: answers, and snapshots.
CAP = 2 * (256 << 20)

# name → (method, target at the gateway, body). The peers answer /name with the very same bytes.
HITS = {
    "4k_get": ("GET", "/msp/customers?fields=id,name", ""),
    "12k_get": ("GET", "/msp/customers?fields=" + SEVEN, ""),
    "12k_post": ("POST", SEARCH, '{"max_returned_items":25,%s}' % RANGE),
    "119k_post": ("POST", SEARCH, '{"max_returned_items":250,%s}' % RANGE),
}
# Readings after which a page is kept in its rendered form.
READINGS = 4


def at_gateway(port, name, server="gateway"):
    method, target, body = HITS[name]
    return Ask(server, port, method, target, body)


def at_peer(port, name, server, how="GET"):
    body = HITS[name][2] if how == "POST" else ""
    return Ask(server, port, how, f"/{name}", body)


def kept(ask):
    """Asks until the answer is kept in its rendered form; the body."""
    for _ in range(READINGS):
        body, _ = fetch(ask)
    return body


def gateway_with_bodies(b, report):
    """A gateway that holds the answers of HITS, its port, and the answers as files for the peers."""
    gateway = b.gateway("gateway", b.vendors("vendors", 60, 20000))
    files = {}
    for name in HITS:
        body = kept(at_gateway(gateway, name))
        files[f"/{name}"] = b.work / name
        files[f"/{name}"].write_bytes(body)
        report.facts[f"bytes of {name}"] = len(body)
    return gateway, files


class Peers:
    """Starts each peer when it is first asked for; remembers which ones cannot be had."""

    def __init__(self, b, files, coded=False):
        self.b, self.files, self.coded, self.ports, self.missing = b, files, coded, {}, {}
        self.origin = b.shelf("origin", "origin", files, LOAD_CORE)

    def port(self, name):
        """Its port; fails with `Missing`, each time with the same reason."""
        if name in self.missing:
            raise Missing(self.missing[name])
        if name not in self.ports:
            try:
                if name == "bare":
                    self.ports[name] = self.b.shelf("bare", "cache", self.files, SERVER_CORE)
                else:
                    self.ports[name] = self.b.peer(name, self.origin, self.files, self.coded)
            except Missing as why:
                self.missing[name] = str(why)
                raise
        return self.ports[name]


def paired(b, args, runs, **more):
    """Rounds of all servers in turn, after one to warm up; rates by the runs' names."""
    rates = {name: [] for name in runs}
    for ask in runs.values():
        b.wrk(ask, 1, args.connections, **more)
    for _ in range(args.rounds):
        for name, ask in runs.items():
            rates[name].append(b.wrk(ask, args.seconds, args.connections, **more))
    return rates


def same_bytes(ask, wanted):
    body, _ = fetch(ask)
    if body != wanted:
        fail(f"{ask.server} answers {ask.target} with other bytes")

