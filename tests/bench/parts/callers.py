"""From one caller to a thousand, each with a rate limit: all of them seeing everything, and each its own
customers, so that each is answered other bytes."""

import hashlib
import itertools
import json

from servers import fail, fetch

from .questions import CAP, READINGS, Ask, at_gateway, kept

QUESTION = "4k_get"
# As many as a gateway takes, the caller of the other parts among them.
MANY = 999
# Never reached, so that it is counted and refuses nobody.
PER_MINUTE = 10_000_000


def key(number):
    """As in wrk.lua."""
    return f"bench-{number:048d}"


def stanza(number, customers):
    digest = hashlib.sha256(key(number).encode()).hexdigest()
    return f"""
[[callers]]
name = "caller-{number}"
key_hash = "sha256:{digest}"
customers = {json.dumps(customers)}
requests_per_minute = {PER_MINUTE}
"""


def run(b, args, report):
    vendors = b.vendors("vendors", 60, 2000)
    stanzas = "".join(stanza(number, ["*"]) for number in range(1, MANY + 1))
    ports = {"gateway": b.gateway("gateway", vendors, stanzas)}
    everything = Ask("gateway", ports["gateway"], "GET", "/msp/customers")
    ids = [row["customer_id"] for row in json.loads(kept(everything))]
    # All but two each: no two see the same, and all see about as much.
    pairs = itertools.islice(itertools.combinations(ids, 2), MANY)
    stanzas = "".join(stanza(number, [id for id in ids if id not in pair]) for number, pair in enumerate(pairs, 1))
    ports["gateway_own"] = b.gateway("gateway_own", vendors, stanzas)
    asks = {name: at_gateway(port, QUESTION, name) for name, port in ports.items()}
    bodies = set()
    for number in range(1, MANY + 1):
        for _ in range(READINGS):
            body, _ = fetch(asks["gateway_own"], key(number))
        bodies.add(body)
    kept(asks["gateway"])
    if len(bodies) != MANY:
        fail(f"{MANY} callers of their own customers were answered {len(bodies)} bodies")
    runs = {"one": ("gateway", 1), "all": ("gateway", MANY),
            "one of own": ("gateway_own", 1), "own": ("gateway_own", MANY)}
    rates = {name: [] for name in runs}
    for number in range(args.rounds + 1):
        for name, (server, count) in runs.items():
            rate = b.wrk(asks[server], args.seconds if number else 1, args.connections, callers=count)
            if number:
                rates[name].append(rate)
    report.rates["callers"] = rates
    report.compare(f"hits of {MANY} callers who see everything", "1 caller", rates["all"], rates["one"], 0.9)
    # Each of these bodies comes from memory, not from the processor's cache, for every server.
    report.compare(f"hits of {MANY} callers, each of its own customers", "1 such caller", rates["own"],
                   rates["one of own"])
    report.memory(f"{MANY} callers", b, list(ports), CAP)
