"""Starts the peers, runs the rounds, prints the table. Called by tests/bench/run."""

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import plot

HERE = pathlib.Path(__file__).resolve().parent
RELEASE = HERE.parent.parent / "target" / "release"
OUT = HERE / "out"
KEY = "bench-0123456789abcdef0123456789abcdef0123456789"
SERVER_CORE, LOAD_CORE = "0", "1"
SEARCH = "/v2/cases/msp/search"
RANGE = '"date_range":{"start":"2026-01-01","end":"2026-06-30"}'
MIB = 1 << 20
# Names within the configuration of nginx.
ORIGIN, VENDOR = "origin", "vendor"

# name → (method, target at the gateway, body). The peers answer /name with the very same bytes.
HITS = {
    "4k_get": ("GET", "/msp/customers?fields=id,name", ""),
    "12k_get": ("GET", "/msp/customers", ""),
    "12k_post": ("POST", SEARCH, '{"max_returned_items":25,%s}' % RANGE),
    "119k_post": ("POST", SEARCH, '{"max_returned_items":250,%s}' % RANGE),
}
# (scenario, how the peer is asked, peer, least ratio wanted or None)
TARGETS = [
    ("4k_get", "GET", "nginx", 1.25),
    ("4k_get", "GET", "varnish", 2.0),
    ("4k_get", "GET", "haproxy", None),
    ("4k_get", "GET", "bare", 0.85),
    ("12k_get", "GET", "nginx", 1.15),
    ("12k_get", "GET", "varnish", None),
    ("12k_get", "GET", "bare", None),
    ("12k_post", "GET", "nginx", 1.15),
    ("12k_post", "POST", "nginx", 1.0),
    ("12k_post", "POST", "bare", None),
    ("119k_post", "GET", "nginx", 1.0),
    ("119k_post", "POST", "nginx", 1.0),
    ("119k_post", "GET", "varnish", None),
    ("119k_post", "GET", "haproxy", None),
    ("119k_post", "POST", "bare", None),
]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Bench:
    def __init__(self, work, stack):
        self.work, self.stack = pathlib.Path(work), stack
        self.procs = {}

    def start(self, name, argv, port, core=SERVER_CORE, env=None):
        """Starts a server pinned to a core and waits until it listens."""
        log = open(self.work / f"{name}.log", "wb")
        proc = subprocess.Popen(
            ["taskset", "-c", core, *map(str, argv)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin", **(env or {})},
        )
        self.stack.callback(self.stop, proc)
        self.procs[name] = proc
        for _ in range(200):
            if proc.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return proc
            time.sleep(0.05)
        said = (self.work / f"{name}.log").read_text(errors="replace")[-2000:]
        sys.exit(f"tests/bench/run: {name} did not start:\n{said}")

    @staticmethod
    def stop(proc):
        if proc.poll() is None:
            proc.terminate()
            try:
                proc.wait(10)
            except subprocess.TimeoutExpired:
                proc.kill()
                proc.wait()

    def vendors(self, name, customers, cases):
        port = free_port()
        self.start(name, [RELEASE / "examples/bench-vendors", f"127.0.0.1:{port}", customers, cases], port, LOAD_CORE)
        return port

    def gateway(self, name, wiv_port, extra=""):
        port, admin = free_port(), free_port()
        config = self.work / f"{name}.toml"
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        config.write_text(f"""
[listen]
public = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
[[callers]]
name = "bench"
key_hash = "sha256:{digest}"
customers = ["*"]
[wiv]
base_url = "http://127.0.0.1:{wiv_port}"
api_key_env = "BENCH_WIV_KEY"
requests_per_minute = 1000000
concurrency = 64
[limits]
drain_delay = "0s"
drain_grace = "1s"
{extra}
""")
        env = {"BENCH_WIV_KEY": "sandbox-wiv-key"}
        # The access log is on, as in production; its lines go nowhere.
        argv = ["sh", "-c", f'exec "$0" serve --config "$1" >/dev/null', RELEASE / "msp-gateway", config]
        if "[log]" in extra:
            argv = [RELEASE / "msp-gateway", "serve", "--config", config]
        self.start(name, argv, port, env=env)
        return port

    def origin(self, name, mode, bodies, core):
        port = free_port()
        argv = [RELEASE / "examples/bench-bare", f"127.0.0.1:{port}", mode]
        self.start(name, argv + [f"{path}={file}" for path, file in bodies.items()], port, core)
        return port

    def nginx(self, origin, pass_to):
        port, cold = free_port(), free_port()
        for sub in ("ncache", "ntmp"):
            (self.work / sub).mkdir(mode=0o777)
            os.chmod(self.work / sub, 0o777)
        os.chmod(self.work, 0o755)
        tmp = self.work / "ntmp"
        conf = self.work / "nginx.conf"
        conf.write_text(f"""
worker_processes 1;
daemon off;
pid {self.work}/nginx.pid;
error_log stderr error;
events {{ worker_connections 2048; }}
http {{
  access_log /dev/null combined buffer=64k flush=5s;
  keepalive_requests 100000000;
  sendfile on; tcp_nopush on; tcp_nodelay on;
  open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s;
  client_body_buffer_size 64k;
  client_body_temp_path {tmp}/b; proxy_temp_path {tmp}/p; fastcgi_temp_path {tmp}/f;
  uwsgi_temp_path {tmp}/u; scgi_temp_path {tmp}/s;
  proxy_cache_path {self.work}/ncache levels=1:2 keys_zone=z:10m max_size=256m inactive=60m use_temp_path=off;
  upstream {ORIGIN} {{ server 127.0.0.1:{origin}; keepalive 64; }}
  upstream {VENDOR} {{ server 127.0.0.1:{pass_to}; keepalive 64; }}
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_buffers 64 8k; proxy_busy_buffers_size 64k;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://{ORIGIN};
      proxy_cache z; proxy_cache_methods GET HEAD POST;
      proxy_cache_key "$request_method$request_uri|$request_body";
      proxy_cache_valid 200 60m; proxy_cache_lock on;
      add_header X-Cache-Status $upstream_cache_status;
    }}
  }}
  server {{
    listen 127.0.0.1:{cold} backlog=1024;
    location / {{ proxy_pass http://{VENDOR}; proxy_set_header X-API-Key sandbox-wiv-key; }}
  }}
}}
""")
        self.start("nginx", ["nginx", "-p", self.work, "-c", conf], port)
        return port, cold

    def varnish(self, origin):
        port = free_port()
        vcl = self.work / "v.vcl"
        vcl.write_text(f"""vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{origin}"; }}
sub vcl_recv {{ unset req.http.Authorization; return (hash); }}
""")
        # Two pools of few threads: there is one core.
        self.start("varnish", ["varnishd", "-F", "-n", self.work / "varnish", "-a", f"127.0.0.1:{port}",
                               "-f", vcl, "-s", "malloc,256m", "-p", "thread_pools=1", "-p", "thread_pool_min=40"], port)
        return port

    def haproxy(self, origin):
        port = free_port()
        conf = self.work / "haproxy.cfg"
        conf.write_text(f"""
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
cache c
  total-max-size 256
  max-object-size 1000000
  max-age 3600
frontend f
  bind 127.0.0.1:{port}
  http-request del-header authorization
  http-request cache-use c
  http-response cache-store c
  default_backend b
backend b
  server s 127.0.0.1:{origin}
""")
        self.start("haproxy", ["haproxy", "-f", conf], port)
        return port

    def wrk(self, server, port, method, target, body, seconds, connections, unique=None):
        """(answers a second, answers a second of the server's time on its core)"""
        env = {"BENCH_METHOD": method, "BENCH_BODY": body, "BENCH_KEY": KEY}
        if unique is not None:
            env["BENCH_UNIQUE"] = str(unique)
        begun = self.cpu(server)
        done = subprocess.run(
            ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s",
             "-s", HERE / "wrk.lua", f"http://127.0.0.1:{port}{target}"],
            env={**os.environ, **env}, capture_output=True, text=True, timeout=seconds + 60,
        )
        for line in done.stdout.splitlines():
            if line.startswith("RESULT "):
                result = json.loads(line[7:])
                if result["errors"]:
                    sys.exit(f"tests/bench/run: {result['errors']} errors at {target} of port {port}")
                used = self.cpu(server) - begun
                return result["requests"] * 1e6 / result["micros"], result["requests"] * 1e9 / used
        sys.exit(f"tests/bench/run: wrk said:\n{done.stdout}{done.stderr}")

    def cpu(self, name):
        """Nanoseconds that a server's threads and children had a core so far."""
        total, todo = 0, [self.procs[name].pid]
        while todo:
            pid = todo.pop()
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    total += int((task / "schedstat").read_text().split()[0])
                    todo += [int(child) for child in (task / "children").read_text().split()]
        return total

    def rss(self, name):
        for line in open(f"/proc/{self.procs[name].pid}/status"):
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0


def fetch(port, method, target, body):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {KEY}"}
    if body:
        headers["Content-Type"] = "application/json"
    conn.request(method, target, body or None, headers)
    answer = conn.getresponse()
    data = answer.read()
    if answer.status != 200:
        sys.exit(f"tests/bench/run: {answer.status} at {target}: {data[:300]!r}")
    return data


def compared(what, peer, ours, theirs, target):
    """A row of the table from paired rounds of two servers: ratios per second of a core, and per second."""
    (ours_wall, ours_core), (their_wall, their_core) = zip(*ours), zip(*theirs)
    ratio = lambda a, b: [x / y for x, y in zip(a, b)]
    return row(what, peer, ratio(ours_core, their_core), target,
               wall=statistics.median(ratio(ours_wall, their_wall)),
               ours_k=statistics.median(ours_core) / 1000, its_k=statistics.median(their_core) / 1000)


def row(what, peer, values, target, higher_is_better=True, **more):
    median = statistics.median(values)
    good = None
    if target is not None:
        good = median >= target if higher_is_better else median <= target
    return {"what": what, "peer": peer, "median": median, "min": min(values), "max": max(values),
            "target": target, "good": good, **more}


def hits(b, args, out):
    vendors = b.vendors("vendors", 60, 20000)
    gateway = b.gateway("gateway", vendors)
    files = {}
    for name, (method, target, body) in HITS.items():
        for _ in range(4):  # kept from the second reading on
            data = fetch(gateway, method, target, body)
        files[f"/{name}"] = b.work / name
        files[f"/{name}"].write_bytes(data)
        out["bytes"][name] = len(data)
    origin = b.origin("origin", "origin", files, LOAD_CORE)
    nginx, _ = b.nginx(origin, origin)
    ports = {"gateway": gateway, "nginx": nginx, "bare": b.origin("bare", "cache", files, SERVER_CORE)}
    wanted = {t[2] for t in TARGETS if not args.peers or t[2] in args.peers}
    if "varnish" in wanted:
        ports["varnish"] = b.varnish(origin)
    if "haproxy" in wanted:
        ports["haproxy"] = b.haproxy(origin)
    for name, (method, target, body) in HITS.items():
        if args.only and name not in args.only:
            continue
        mine = [t for t in TARGETS if t[0] == name and t[2] in ports and t[2] in wanted]
        runs = {"gateway": (gateway, method, target, body)}
        for _, how, peer, _ in mine:
            runs[f"{peer} {how}"] = (ports[peer], how, f"/{name}", body if how == "POST" else "")
        for server, (port, how, path, text) in runs.items():
            if server != "gateway" and fetch(port, how, path, text) != (b.work / name).read_bytes():
                sys.exit(f"tests/bench/run: {server} answers {name} with other bytes")
            b.wrk(server.split()[0], port, how, path, text, 1, args.connections)
        rates = {server: [] for server in runs}
        for _ in range(args.rounds):
            for server, (port, how, path, text) in runs.items():
                rates[server].append(b.wrk(server.split()[0], port, how, path, text, args.seconds, args.connections))
        out["rates"][name] = rates
        for _, how, peer, target_ratio in mine:
            out["rows"].append(compared(f"hit {name}", f"{peer} {how}", rates["gateway"], rates[f"{peer} {how}"],
                                        target_ratio))
            show(out["rows"][-1])
    out["rss"]["gateway after hits"] = b.rss("gateway")


def cold(b, args, out):
    """Every question is a new one: what the gateway adds to the vendor's own time."""
    rows = ",".join('{"case_id":"c%04d","customer_id":"org_%d","case_type":"finding","text":"%s"}' % (n, n % 9, "x" * 400)
                    for n in range(25))
    page = b.work / "page"
    page.write_text('{"data":[%s],"next_page_key":null}' % rows)
    vendor = b.origin("vendor", "origin", {SEARCH: page}, LOAD_CORE)
    gateway = b.gateway("gateway_cold", vendor)
    _, nginx = b.nginx(vendor, vendor)
    body = '{"max_returned_items":25,"n":@,%s}' % RANGE
    rates, unique = {"gateway_cold": [], "nginx": []}, 0
    for number in range(args.rounds + 1):
        for server, port in (("gateway_cold", gateway), ("nginx", nginx)):
            unique += 10_000_000
            # Few connections: enough to keep one core busy, without queueing for a long time.
            rate = b.wrk(server, port, "POST", SEARCH, body, args.seconds, 8, unique)
            if number:  # the first round warms up
                rates[server].append(rate)
    out["rates"]["cold"] = rates
    out["rows"].append(compared("cold pass-through, 12 KB", "nginx POST", rates["gateway_cold"], rates["nginx"], 1.0))
    show(out["rows"][-1])
    out["rss"]["gateway after cold searches"] = b.rss("gateway_cold")


def pages(b, args, out):
    """A walk of 100,000 cases in pages of 25."""
    cases = 100_000
    vendors = b.vendors("vendors_pages", 60, cases)
    gateway = b.gateway("gateway_pages", vendors)
    before = b.rss("gateway_pages")

    def walk(size):
        done = subprocess.run(
            ["taskset", "-c", LOAD_CORE, RELEASE / "examples/bench-walk", f"127.0.0.1:{gateway}", KEY, str(size)],
            capture_output=True, text=True, timeout=300)
        if done.returncode:
            sys.exit(f"tests/bench/run: the walk failed: {done.stderr[-500:]}")
        return json.loads(done.stdout)

    first = walk(25)
    after = b.rss("gateway_pages")
    raw = first["bytes"]
    values, last = [], []
    for number in range(args.rounds):
        # Another page size each time, so that no page was read before.
        again = walk(26 + number)
        values.append(again["page_1000_us"] / again["page_1_us"])
        last.append(again["last_us"] / again["page_1_us"])
        raw = max(raw, again["bytes"])
    out["rates"]["pages"] = {"first": first, "again": again}
    out["rows"].append(row("time of page 1,000 / page 1", "itself", values, 1.1, False))
    out["rows"].append(row("time of the last page / page 1", "itself", last, 1.1, False))
    bound = 1.15 * raw + 128 * MIB
    out["rows"].append(row("RSS after 100,000 cases / (1.15 rows + 128 MiB)", "bound", [after / bound], 1.0, False,
                           rss=after, raw=raw))
    # What the walk itself added: the rows, their columns and the allocator's slack.
    out["rows"].append(row("RSS added by 100,000 cases / rows", "rows", [(after - before) / raw], None, False))
    out["rss"]["gateway after 100,000 cases"] = after
    for each in out["rows"][-4:]:
        show(each)


def show(r):
    target = "" if r["target"] is None else f"{r['target']:.2f}"
    mark = {None: "", True: "good", False: "missed"}[r["good"]]
    more = f"{r['wall']:7.2f} {r['ours_k']:8.1f} {r['its_k']:8.1f}" if "wall" in r else " " * 25
    print(f"{r['what']:<48} {r['peer']:<14} {r['median']:7.2f} {r['min']:7.2f} {r['max']:7.2f} {target:>7} {more}  {mark}",
          flush=True)


def head():
    print(f"{'what':<48} {'against':<14} {'median':>7} {'min':>7} {'max':>7} {'target':>7} {'by wall':>7} {'k/core-s':>8} {'its':>8}", flush=True)


def main():
    parts = {"hits": hits, "cold": cold, "pages": pages}
    args = argparse.ArgumentParser(prog="tests/bench/run")
    args.add_argument("--quick", action="store_true", help="5 rounds of one second")
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--seconds", type=int, default=4)
    args.add_argument("--connections", type=int, default=32)
    args.add_argument("--part", action="append", choices=list(parts), help="only this part; may be repeated")
    args.add_argument("--only", action="append", choices=list(HITS), help="only this hit; may be repeated")
    args.add_argument("--peers", action="append", choices=["nginx", "varnish", "haproxy", "bare"])
    args = args.parse_args()
    if args.quick:
        args.seconds = 1
    out = {"rounds": args.rounds, "seconds": args.seconds, "connections": args.connections,
           "rows": [], "rates": {}, "bytes": {}, "rss": {}}
    head()
    for part in args.part or parts:
        # /dev/shm: nginx keeps its cache in files, and these should be in memory.
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="msp-bench-", dir=base) as work, contextlib.ExitStack() as stack:
            parts[part](Bench(work, stack), args, out)
    OUT.mkdir(exist_ok=True)
    (OUT / "results.json").write_text(json.dumps(out, indent=1) + "\n")
    with open(OUT / "results.txt", "w") as text, contextlib.redirect_stdout(text):
        head()
        for r in out["rows"]:
            show(r)
        for name, bytes_ in out["rss"].items():
            print(f"RSS, {name}: {bytes_ / MIB:.1f} MiB")
    (OUT / "results.svg").write_text(plot.svg(out["rows"]))
    for name, bytes_ in out["rss"].items():
        print(f"RSS, {name}: {bytes_ / MIB:.1f} MiB")
    print(f"written: {OUT.relative_to(pathlib.Path.cwd())}/results.txt, .json, .svg")


if __name__ == "__main__":
    main()
