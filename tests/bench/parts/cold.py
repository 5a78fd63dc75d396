"""Every question is a new one: what each adds to the vendor's own time."""

from peers import Missing

from servers import LOAD_CORE

from .questions import CAP, RANGE, SEARCH, Ask

# Server → (which peer it is, whether it stores what it passes on, the target of the ratio). The gateway
# stores every answer, so nginx with its cache on is the like-for-like comparison.
PEERS = {
    "nginx": ("nginx", False, 0.5),
    "nginx-storing": ("nginx", True, 1.5),
    "varnish": ("varnish", False, None),
    "haproxy": ("haproxy", False, None),
    "caddy": ("caddy", False, None),
    "envoy": ("envoy", False, None),
}
# Most time that a cold search may add, as a multiple of what nginx adds.
ADDED_MAX = 1.25
# Enough to keep one core busy, without queueing for a long time.
CONNECTIONS = 8


TITLE = "cold search, 12 KB"


def against(server):
    """How a line names the peer: what it does with the answer belongs to the comparison."""
    peer, stores, _ = PEERS[server]
    return f"{peer} POST, {'storing' if stores else 'passing through'}"


def run(b, args, report):
    rows = ",".join('{"case_id":"c%04d","customer_id":"org_%d","case_type":"finding","text":"%s"}' % (n, n % 9, "x" * 400)
                    for n in range(25))
    page = b.work / "page"
    page.write_text('{"data":[%s],"next_page_key":null}' % rows)
    vendor = b.shelf("vendor", "origin", {SEARCH: page}, LOAD_CORE)
    body = '{"max_returned_items":25,"n":@,%s}' % RANGE
    asks = {"gateway": Ask("gateway", b.gateway("gateway", vendor), "POST", SEARCH, body)}
    for server, (peer, stores, _) in PEERS.items():
        if peer not in args.peers:
            continue
        try:
            port = b.peer(peer, vendor, {} if stores else None, alias=server)
            asks[server] = Ask(server, port, "POST", SEARCH, body)
        except Missing as why:
            report.absent(TITLE, against(server), str(why))
    rates, unique = {name: [] for name in asks}, 0
    for number in range(args.rounds + 1):
        for name, ask in asks.items():
            unique += 10_000_000
            rate = b.wrk(ask, args.seconds if number else 1, CONNECTIONS, unique)
            if number:  # the first round warms up
                rates[name].append(rate)
    report.rates["cold"] = rates
    for server in asks:
        if server != "gateway":
            report.compare(TITLE, against(server), rates["gateway"], rates[server], PEERS[server][2])
    latency(b, args, report, asks, Ask("vendor", vendor, "POST", SEARCH, body), unique)
    report.memory("cold searches", b, list(asks), CAP)


def latency(b, args, report, asks, vendor, unique):
    """One question at a time: what is added to the vendor's own time, against what nginx adds."""
    nginx = [server for server in asks if PEERS.get(server, ("",))[0] == "nginx"]
    if not nginx:
        return
    servers = {"vendor": vendor, "gateway": asks["gateway"], **{server: asks[server] for server in nginx}}
    mean = {name: [] for name in servers}
    for number in range(args.rounds + 1):
        for name, ask in servers.items():
            unique += 10_000_000
            rate, _ = b.wrk(ask, 1, 1, unique)
            if number:
                mean[name].append(1e6 / rate)
    report.rates["cold, microseconds one by one"] = mean
    added = {name: [time - base for time, base in zip(mean[name], mean["vendor"])] for name in servers}
    for server in nginx:
        report.add("time added to a cold search, one by one", against(server),
                   [ours / its for ours, its in zip(added["gateway"], added[server])], ADDED_MAX, False)
