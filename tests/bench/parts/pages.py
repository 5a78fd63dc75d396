"""A walk of 100,000 cases in pages of 25: what deep pages take, and the memory after it."""

import json
import subprocess

from report import MIB
from servers import EXAMPLES, KEY, LOAD_CORE, fail

from .questions import CAP

CASES = 100_000


def run(b, args, report):
    gateway = b.gateway("gateway", b.vendors("vendors", 60, CASES))
    before = b.rss("gateway")

    def walk(size):
        done = subprocess.run(
            ["taskset", "-c", LOAD_CORE, EXAMPLES / "bench-walk", f"127.0.0.1:{gateway}", KEY, str(size),
             str(b.procs["gateway"].pid)],
            capture_output=True, text=True, timeout=300)
        if done.returncode:
            fail(f"the walk failed: {done.stderr[-500:]}")
        return json.loads(done.stdout)

    first = walk(25)
    after = b.rss("gateway")
    raw = first["bytes"]
    ratios = {"server": [[], []], "caller": [[], []]}
    again = None
    for number in range(args.rounds):
        # Another page size each time, so that no page was read before.
        again = walk(26 + number)
        for who, unit in [("server", "_server_us"), ("caller", "_us")]:
            for values, deep in zip(ratios[who], ["page_1000", "last"]):
                values.append(again[deep + unit] / again["page_1" + unit])
        raw = max(raw, again["bytes"])
    report.rates["pages"] = {"first": first, "again": again}
    # As everywhere: the server's own time on its core. What a caller waits is mostly the machine's time
    # for waking two sleeping processes.
    for values, deep in zip(ratios["server"], ["page 1,000", "the last page"]):
        report.add(f"time of {deep} / page 1", "itself", values, 1.1, False)
    for values, deep in zip(ratios["caller"], ["page 1,000", "the last page"]):
        report.add(f"waiting for {deep} / page 1", "itself", values, None, False)
    bound = 1.15 * raw + 128 * MIB
    report.add("RSS after 100,000 cases / (1.15 rows + 128 MiB)", "bound", [after / bound], 1.0, False,
               rss=after, raw=raw)
    # What the walk itself added: the rows, their columns and the allocator's slack.
    report.add("RSS added by 100,000 cases / rows", "rows", [(after - before) / raw], None, False)
    report.memory("100,000 cases", b, ["gateway"], CAP)
