"""Starts servers and load, each pinned to its core, and ends what it started."""

import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import peers

HERE = pathlib.Path(__file__).resolve().parent
TARGET = HERE.parent.parent / "target"
EXAMPLES = TARGET / "release" / "examples"
KEY = "bench-0123456789abcdef0123456789abcdef0123456789"
SERVER_CORE, LOAD_CORE = "0", "1"
STARTS_WITHIN_S = 20


def fail(why):
    sys.exit(f"tests/bench/run: {why}")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Ask:
    """A question: at which port, how, and what it accepts."""

    def __init__(self, server, port, method, target, body="", accept=None):
        self.server, self.port, self.method = server, port, method
        self.target, self.body, self.accept = target, body, accept


class Bench:
    """The servers of one part. Everything ends with its stack."""

    def __init__(self, work, stack):
        self.work, self.stack = pathlib.Path(work), stack
        self.procs = {}
        # nginx drops its rights and must find its folders.
        os.chmod(self.work, 0o755)

    def start(self, name, argv, port, core=SERVER_CORE, env=None):
        """Starts a server on a core and waits until it listens."""
        log = open(self.work / f"{name}.log", "wb")
        proc = subprocess.Popen(
            ["taskset", "-c", core, *map(str, argv)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin", **(env or {})},
        )
        self.stack.callback(self.stop, proc)
        self.procs[name] = proc
        until = time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < until and proc.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return proc
            time.sleep(0.05)
        said = (self.work / f"{name}.log").read_text(errors="replace")[-2000:]
        fail(f"{name} did not start:\n{said}")

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
        self.start(name, [EXAMPLES / "bench-vendors", f"127.0.0.1:{port}", customers, cases], port, LOAD_CORE)
        return port

    def shelf(self, name, mode, bodies, core):
        """A server of fixed bodies: `cache` is the bare peer, `origin` stands behind the others."""
        port = free_port()
        argv = [EXAMPLES / "bench-bare", f"127.0.0.1:{port}", mode]
        self.start(name, argv + [f"{path}={file}" for path, file in bodies.items()], port, core)
        return port

    def gateway(self, name, wiv_port, extra="", limits="", nable_port=None):
        """The gateway in front of wiv (and N-able) at these ports; `admin` of it is (name, "admin")."""
        port, admin = free_port(), free_port()
        config = self.work / f"{name}.toml"
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        nable = "" if nable_port is None else f"""
[nable]
base_url = "http://127.0.0.1:{nable_port}/ws/rest/V1/PSA_API"
account_id = "SANDBOX"
api_key_env = "BENCH_NABLE_KEY"
requests_per_minute = 1000000
concurrency = 64
"""
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
{nable}
[limits]
drain_delay = "0s"
drain_grace = "1s"
{limits}
{extra}
""")
        env = {"BENCH_WIV_KEY": "sandbox-wiv-key", "BENCH_NABLE_KEY": "sandbox-nable-key"}
        # The access log is on, as in production; its lines go nowhere.
        argv = ["sh", "-c", 'exec "$0" serve --config "$1" >/dev/null', TARGET / "release/msp-gateway", config]
        self.start(name, argv, port, env=env)
        self.admin = admin
        return port

    def peer(self, name, origin, files, coded=False, alias=None):
        """The port of a peer in front of an origin. `alias` names a second server of the same kind.
        Fails with `peers.Missing` if the peer cannot be had here."""
        port, work = free_port(), self.work / (alias or "")
        work.mkdir(exist_ok=True)
        os.chmod(work, 0o755)
        argv, env = peers.PEERS[name](work, port, origin, files, coded)
        self.start(alias or name, argv, port, env=env)
        return port

    def wrk(self, ask, seconds, connections, unique=None, among=None, callers=None):
        """(answers a second, answers a second of the server's time on its core). `unique`: each body
        is another one, numbered from there. `among`: each target is drawn from this many.
        `callers`: the caller of each request is drawn from this many."""
        env = {"BENCH_METHOD": ask.method, "BENCH_BODY": ask.body, "BENCH_KEY": KEY, "BENCH_TARGET": ask.target}
        if ask.accept:
            env["BENCH_ACCEPT"] = ask.accept
        if unique is not None:
            env["BENCH_UNIQUE"] = str(unique)
        if among is not None:
            env["BENCH_AMONG"] = str(among)
        if callers is not None:
            env["BENCH_CALLERS"] = str(callers)
        begun = self.cpu(ask.server)
        done = subprocess.run(
            ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s",
             "-s", HERE / "wrk.lua", f"http://127.0.0.1:{ask.port}{ask.target.replace('@', '0')}"],
            env={**os.environ, **env}, capture_output=True, text=True, timeout=seconds + 90,
        )
        for line in done.stdout.splitlines():
            if line.startswith("RESULT "):
                result = json.loads(line[7:])
                if result["errors"] or not result["requests"]:
                    fail(f"{result['errors']} errors of {result['requests']} at {ask.target} of {ask.server}")
                used = self.cpu(ask.server) - begun
                return result["requests"] * 1e6 / result["micros"], result["requests"] * 1e9 / used
        fail(f"wrk said:\n{done.stdout}{done.stderr}")

    def load(self, port, *words, timeout=120):
        """What bench-load says, from the load's core."""
        done = subprocess.run(
            ["taskset", "-c", LOAD_CORE, EXAMPLES / "bench-load", f"127.0.0.1:{port}", KEY, *map(str, words)],
            capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            fail(f"bench-load {words[0]} failed: {done.stderr[-500:]}")
        return json.loads(done.stdout)

    @contextlib.contextmanager
    def held(self, ask, count):
        """Holds `count` idle connections open, each of which sent one request."""
        argv = ["taskset", "-c", LOAD_CORE, str(EXAMPLES / "bench-load"), f"127.0.0.1:{ask.port}", KEY,
                "hold", str(count), ask.method, ask.target, *([ask.body] if ask.body else [])]
        proc = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.stack.callback(self.stop, proc)
        line = proc.stdout.readline()
        if not line or json.loads(line)["held"] != count:
            fail(f"could not hold {count} connections to {ask.server}")
        try:
            yield
        finally:
            proc.stdin.close()
            proc.wait(30)

    def cpu(self, name):
        """Nanoseconds that a server's threads and children had a core so far."""
        total = 0
        for pid in self.family(name):
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    total += int((task / "schedstat").read_text().split()[0])
        return total

    def family(self, name):
        """A server's process and all below it."""
        todo, found = [self.procs[name].pid], []
        while todo:
            pid = todo.pop()
            found.append(pid)
            with contextlib.suppress(OSError):
                for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                    todo += [int(child) for child in (task / "children").read_text().split()]
        return found

    def rss(self, name):
        """Bytes resident, of all its processes; what they share counts in each."""
        total = 0
        for pid in self.family(name):
            with contextlib.suppress(OSError):
                for line in open(f"/proc/{pid}/status"):
                    if line.startswith("VmRSS:"):
                        total += int(line.split()[1]) * 1024
        return total


def exchange(ask, key=KEY):
    """(status, headers, body) of one request."""
    conn = http.client.HTTPConnection("127.0.0.1", ask.port, timeout=30)
    headers = {"Authorization": f"Bearer {key}"}
    if ask.body:
        headers["Content-Type"] = "application/json"
    if ask.accept:
        headers["Accept-Encoding"] = ask.accept
    with contextlib.closing(conn):
        conn.request(ask.method, ask.target, ask.body or None, headers)
        answer = conn.getresponse()
        return answer.status, answer.headers, answer.read()


def fetch(ask, key=KEY):
    """(body, its coding) of a good answer."""
    status, headers, body = exchange(ask, key)
    if status != 200:
        fail(f"{status} at {ask.target} of {ask.server}: {body[:300]!r}")
    return body, headers.get("Content-Encoding")


def metric(port, name):
    """A number that the gateway's admin listener tells, if it does so yet; `name` with its labels."""
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(conn):
        conn.request("GET", "/metrics")
        for line in conn.getresponse().read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
    return None
