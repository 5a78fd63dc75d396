"""From 1,000 entries to 1,000,000: tiny bills, one for each contract. Hits must not slow down, and the
memory must be what the cache thinks it is."""

import time

from servers import LOAD_CORE, fail, metric

from .questions import Ask, kept

FEW, MANY, MANY_QUICK = 1_000, 1_000_000, 100_000
# Bills have an eighth of it.
CACHE = 16 << 30
TARGET = "/v1/billing/202601/c@"
BILL = '{"BillableServices":[{"ServiceName":"backup","Quantity":12,"UnitPrice":"4.20"}],"AccountName":"Bench"}'
# Bytes that an entry is charged beside its payload.
OVERHEAD = 1024
# What goes through the cache is counted a little later.
SETTLES_WITHIN_S = 20


def held(admin, wanted):
    """Entries that the cache says it holds, once there are as many as there should be."""
    until = time.monotonic() + SETTLES_WITHIN_S
    while True:
        count = int(metric(admin, 'msp_gateway_cache_entries{store="answers"}') or 0)
        if count >= wanted or time.monotonic() > until:
            return count
        time.sleep(0.5)


def run(b, args, report):
    many = MANY_QUICK if args.quick else MANY
    bill = b.work / "bill"
    bill.write_text(BILL)
    vendor = b.shelf("vendor", "origin", {"*": bill}, LOAD_CORE)
    ports, counts, rss = {}, {}, {}
    for name, count in (("gateway", FEW), ("gateway_many", many)):
        ports[name] = b.gateway(name, vendor, f"[cache]\nbytes_max = {CACHE}", nable_port=vendor)
        admin = b.admin
        begun = time.monotonic()
        b.load(ports[name], "fill", count, 64, TARGET, timeout=600)
        report.facts[f"seconds to fill {count:,} entries"] = f"{time.monotonic() - begun:.1f}"
        counts[name] = held(admin, count)
        rss[name] = b.rss(name)
        if counts[name] < count:
            fail(f"the cache of {name} holds {counts[name]} of {count} entries")
    ask = lambda name: Ask(name, ports[name], "GET", TARGET)
    length = len(kept(Ask("gateway", ports["gateway"], "GET", TARGET.replace("@", "1"))))
    rates = {"few": [], "hot": [], "all": []}
    runs = {"few": (ask("gateway"), FEW), "hot": (ask("gateway_many"), FEW), "all": (ask("gateway_many"), many)}
    for number in range(args.rounds + 1):
        for name, (question, among) in runs.items():
            rate = b.wrk(question, args.seconds if number else 1, args.connections, among=among)
            if number:
                rates[name].append(rate)
    report.rates["entries"] = rates
    report.compare(f"hits among 1,000 of {many:,} entries", "1,000 entries", rates["hot"], rates["few"], 0.9)
    # Each of these misses the processor's caches too, for every server.
    report.compare(f"hits spread over {many:,} entries", "1,000 entries", rates["all"], rates["few"])
    each = (rss["gateway_many"] - rss["gateway"]) / (counts["gateway_many"] - counts["gateway"])
    report.facts["bytes of an entry"] = f"{each:.0f} resident, {length} payload, {OVERHEAD} charged beside it"
    report.add("RSS of an entry / (payload + overhead)", "charge", [each / (length + OVERHEAD)], 1.15, False)
    # The bound of snapshots beside that of answers.
    report.memory(f"{many:,} entries", b, ["gateway_many"], CACHE + (256 << 20))
