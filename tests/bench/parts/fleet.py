"""Gateways over one Valkey: what hits cost beside each other, what a page costs that another one read,
and what it costs to keep a vendor's page."""

import concurrent.futures
import json
import subprocess
import time

from servers import HERE, LOAD_CORE, Ask, exchange, fail, fetch, free_port

from .questions import CAP, SEARCH, at_gateway, kept

GATEWAYS = 3
QUESTION = "4k_get"
# Searches that one gateway walks and another one is asked for.
FOLLOWED = 100
CUSTOMERS, CASES, VENDOR_PAGE = 60, 20_000, 500


def valkey(b):
    found = subprocess.run([HERE.parent / "valkey-server"], capture_output=True, text=True, check=False)
    if found.returncode:
        fail(found.stderr.strip())
    port = free_port()
    b.start("valkey", [found.stdout.strip(), "--bind", "127.0.0.1", "--port", port, "--save", "",
                       "--dir", b.work], port, LOAD_CORE)
    return port


def hits(b, args, asks):
    """Returns (answers a second, answers a second of the servers' time) of all these gateways at once."""
    with concurrent.futures.ThreadPoolExecutor(len(asks)) as pool:
        each = list(pool.map(lambda ask: b.wrk(ask, args.seconds, args.connections // len(asks)), asks))
    rate = sum(wall for wall, _ in each)
    return rate, rate / sum(wall / core for wall, core in each)


def timed(ask):
    begun = time.perf_counter()
    status, _, body = exchange(ask)
    if status != 200:
        fail(f"{status} of {ask.server}: {body[:200]!r}")
    return (time.perf_counter() - begun) * 1e6


def page_through(b, name, port, number):
    """Nanoseconds of the server's time to page all cases, in pages as large as the vendor's."""
    body = {"max_returned_items": VENDOR_PAGE, "n": number}
    begun, rows = b.cpu(name), 0
    while True:
        answer = json.loads(fetch(Ask(name, port, "POST", SEARCH, json.dumps(body)))[0])
        rows += len(answer["data"])
        if not answer.get("next_page_key"):
            break
        body["start_page_key"] = answer["next_page_key"]
    if rows != CASES:
        fail(f"{name} gave {rows} of {CASES} cases")
    return b.cpu(name) - begun


def run(b, args, report):
    engine = valkey(b)
    vendor = b.vendors("vendors", CUSTOMERS, CASES)
    shared = f'[store]\nkind = "valkey"\n[store.valkey]\naddresses = ["127.0.0.1:{engine}"]\n'
    ports = {"gateway_alone": b.gateway("gateway_alone", vendor, '[store]\nkind = "none"\n')}
    fleet = [f"gateway_{n}" for n in range(1, GATEWAYS + 1)]
    for name in fleet:
        ports[name] = b.gateway(name, vendor, shared)
    asks = {name: at_gateway(port, QUESTION, name) for name, port in ports.items()}
    for ask in asks.values():
        kept(ask)
    groups = {"alone": ["gateway_alone"], **{str(n): fleet[:n] for n in range(1, GATEWAYS + 1)}}
    rates = {group: [] for group in groups}
    for number in range(args.rounds + 1):
        for group, names in groups.items():
            rate = hits(b, args, [asks[name] for name in names])
            if number:
                rates[group].append(rate)
    report.rates["fleet"] = rates
    report.compare("hits of a gateway over Valkey", "without a store", rates["1"], rates["alone"])
    for count in range(2, GATEWAYS + 1):
        report.compare(f"hits of {count} gateways over Valkey", "one of them", rates[str(count)], rates["1"])

    ratios, cost = [], []
    for number in range(args.rounds):
        own, followed = [], []
        for nth in range(FOLLOWED):
            body = json.dumps({"max_returned_items": 25, "n": number * FOLLOWED + nth,
                               "date_range": {"start": "2026-01-05", "end": "2026-01-05"}})
            own.append(timed(Ask(fleet[0], ports[fleet[0]], "POST", SEARCH, body)))
            followed.append(timed(Ask(fleet[1], ports[fleet[1]], "POST", SEARCH, body)))
        middle = lambda times: sorted(times)[len(times) // 2]
        ratios.append(middle(followed) / middle(own))
        spent = {name: page_through(b, name, ports[name], f"walk-{number}") for name in (fleet[0], "gateway_alone")}
        cost.append((spent[fleet[0]] - spent["gateway_alone"]) / 1e3 / (CASES / VENDOR_PAGE))
    report.add("first page of a search walked elsewhere", "its own walk", ratios, None, False)
    report.add("microseconds to keep a vendor's page", "without a store", cost, None, False)
    report.memory("the fleet", b, list(ports), CAP)
