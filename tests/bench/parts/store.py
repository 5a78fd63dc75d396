"""After a restart: how soon answers are remembered again, and what the vendor is asked for a second time."""

import http.client
import json
import random
import signal

from peers import Missing
import peers

from servers import Ask, exchange, free_port

from .questions import SEARCH

# Questions that are in use, and how many are asked after the restart, drawn again.
QUESTIONS = 200
AFTER = 1_000
# The ratio is back once this many of the next hundred are answered without the vendor.
BACK, OF = 99, 100
CUSTOMERS, CASES = 20, 5_000


def question(server, port, number):
    body = json.dumps({"max_returned_items": 25, "n": number,
                       "date_range": {"start": "2026-01-05", "end": "2026-01-05"}})
    return Ask(server, port, "POST", SEARCH, body)


def calls(vendor):
    """Requests that the simulated vendor got so far."""
    conn = http.client.HTTPConnection("127.0.0.1", vendor, timeout=30)
    conn.request("GET", "/__sandbox/counts")
    counts = json.loads(conn.getresponse().read())
    conn.close()
    return sum(operation["requests"] for operation in counts["operations"].values())


def restart(b, name, start):
    """Ends a server as a deploy does, and starts it again with what it left on disk."""
    b.procs[name].send_signal(signal.SIGQUIT if name == "nginx" else signal.SIGTERM)
    b.procs[name].wait(30)
    return start()


def measure(b, name, start, vendor, seed):
    """(requests until the hit ratio is back, vendor calls after the restart)."""
    port = start()
    for _ in range(2):
        for number in range(QUESTIONS):
            status, _, body = exchange(question(name, port, number))
            assert status == 200, (name, status, body[:200])
    port = restart(b, name, start)
    draw = random.Random(seed)
    begun = before = calls(vendor)
    remembered = []
    for _ in range(AFTER):
        status, _, body = exchange(question(name, port, draw.randrange(QUESTIONS)))
        assert status == 200, (name, status, body[:200])
        now = calls(vendor)
        remembered.append(now == before)
        before = now
    b.stop(b.procs[name])
    back = next((n for n in range(AFTER - OF) if sum(remembered[n:n + OF]) >= BACK), AFTER)
    return back, before - begun


def run(b, args, report):
    rounds = min(args.rounds, 3)
    found = {}
    for number in range(rounds):
        servers = {}
        for name, store in (("gateway", "disk"), ("gateway_forgets", "none")):
            folder = b.work / f"{name}-{number}"
            folder.mkdir(mode=0o700)
            extra = f'[store]\nkind = "{store}"\ndirectory = "{folder}"\n'
            servers[name] = lambda vendor, name=name, extra=extra: (lambda: b.gateway(name, vendor, extra))
        if "nginx" in args.peers:
            work = b.work / f"nginx-{number}"
            work.mkdir()
            work.chmod(0o755)

            def nginx(vendor, work=work):
                def start():
                    port = free_port()
                    argv, env = peers.PEERS["nginx"](work, port, vendor, {}, False)
                    # nginx does not store an answer that sets a cookie, as the simulated vendor's do.
                    conf = work / "nginx.conf"
                    ignore = "proxy_ignore_headers Set-Cookie; proxy_cache z;"
                    conf.write_text(conf.read_text().replace("proxy_cache z;", ignore))
                    b.start("nginx", argv, port, env=env)
                    return port
                return start
            servers["nginx"] = nginx
        for name, start in servers.items():
            vendor = b.vendors(f"vendors-{name}-{number}", CUSTOMERS, CASES)
            try:
                found.setdefault(name, []).append(measure(b, name, start(vendor), vendor, number))
            except Missing as why:
                report.absent("requests until the hit ratio is back", name, str(why))
    for name, rounds_of in found.items():
        back, asked = zip(*rounds_of)
        against = {"gateway": "a store on disk", "gateway_forgets": "no store", "nginx": "nginx, its cache warm"}[name]
        report.add("requests until the hit ratio is back", against, list(back), 0 if name == "gateway" else None, False)
        report.add("vendor calls after a restart", against, list(asked), 0 if name == "gateway" else None, False)
    report.rates["store: (requests until the ratio is back, vendor calls)"] = found
