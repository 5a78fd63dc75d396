"""Every question is a new one: what each adds to the vendor's own time."""

from peers import Missing

from servers import LOAD_CORE

from .questions import CAP, RANGE, SEARCH, Ask

PEERS = {"nginx": 1.0, "varnish": None, "haproxy": None, "caddy": None, "envoy": None}
# Enough to keep one core busy, without queueing for a long time.
CONNECTIONS = 8


def run(b, args, report):
    rows = ",".join('{"case_id":"c%04d","customer_id":"org_%d","case_type":"finding","text":"%s"}' % (n, n % 9, "x" * 400)
                    for n in range(25))
    page = b.work / "page"
    page.write_text('{"data":[%s],"next_page_key":null}' % rows)
    vendor = b.shelf("vendor", "origin", {SEARCH: page}, LOAD_CORE)
    body = '{"max_returned_items":25,"n":@,%s}' % RANGE
    asks = {"gateway": Ask("gateway", b.gateway("gateway", vendor), "POST", SEARCH, body)}
    for peer in PEERS:
        if peer not in args.peers:
            continue
        try:
            asks[peer] = Ask(peer, b.peer(peer, vendor, None), "POST", SEARCH, body)
        except Missing as why:
            report.absent("cold pass-through, 12 KB", f"{peer} POST", str(why))
    rates, unique = {name: [] for name in asks}, 0
    for number in range(args.rounds + 1):
        for name, ask in asks.items():
            unique += 10_000_000
            rate = b.wrk(ask, args.seconds if number else 1, CONNECTIONS, unique)
            if number:  # the first round warms up
                rates[name].append(rate)
    report.rates["cold"] = rates
    for peer in asks:
        if peer != "gateway":
            report.compare("cold pass-through, 12 KB", f"{peer} POST", rates["gateway"], rates[peer], PEERS[peer])
    latency(b, args, report, asks, Ask("vendor", vendor, "POST", SEARCH, body), unique)
    report.memory("cold searches", b, list(asks), CAP)


def latency(b, args, report, asks, vendor, unique):
    """One question at a time: what is added to the vendor's own time, against what nginx adds."""
    if "nginx" not in asks:
        return
    mean = {"vendor": [], "gateway": [], "nginx": []}
    for number in range(args.rounds + 1):
        for name, ask in {"vendor": vendor, "gateway": asks["gateway"], "nginx": asks["nginx"]}.items():
            unique += 10_000_000
            rate, _ = b.wrk(ask, 1, 1, unique)
            if number:
                mean[name].append(1e6 / rate)
    report.rates["cold, microseconds one by one"] = mean
    added = {name: [time - base for time, base in zip(mean[name], mean["vendor"])] for name in ("gateway", "nginx")}
    report.add("time added to a cold search, one by one", "nginx POST",
               [ours / its for ours, its in zip(added["gateway"], added["nginx"])], 1.0, False)
