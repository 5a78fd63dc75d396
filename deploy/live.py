"""The alerts and the dashboard over the real program in a real Prometheus; called by ./check.

Usage: live.py PROGRAM ALERTS DASHBOARD

Simulated vendors, the gateway and a Prometheus run on loopback for about a minute. A minute of the
rules is a second here, so scrapes come twice a second. First nothing may fire. Then wiv hangs, and
the page for it must come with its words filled in, stay while wiv hangs, and end when it is back.
"""

import http.server
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

PROGRAM, ALERTS, DASHBOARD = (os.path.abspath(path) for path in sys.argv[1:4])
VENDOR_HANGS = "MspGatewayVendorCircuitOpen"
# What a dead vendor may set off beside it.
CONSEQUENCES = {VENDOR_HANGS} | {f"MspGateway{n}" for n in ("Errors", "WalksLost", "ScrollsShort")}
# Expressions that have nothing to show here: no TLS, no export, no problem, no gone token yet.
MAY_BE_EMPTY = re.compile(r"tls_|problems_total|requests_shed_total|credential_fallbacks|token_heals|coded_variants|histogram_quantile|status=~")


def fail(why):
    print(f"deploy/live: {why}", file=sys.stderr)
    sys.exit(1)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def ask(url, body=None, timeout=5):
    request = urllib.request.Request(url, data=body, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, TimeoutError):
        return 0, b""


def until(what, seconds, test):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = test()
        if found:
            return found
        time.sleep(0.2)
    fail(f"{what} within {seconds} s")


def seconds_for_minutes(rules):
    """The rules with every length of time a sixtieth."""
    units = {"s": "ms", "m": "s", "h": "m"}

    def shorter(match):
        number, unit = int(match[1]), match[2]
        return f"{number * 1000 // 60}ms" if unit == "s" else f"{number}{units[unit]}"

    lines = []
    for line in rules.splitlines():
        is_text = re.match(r"\s*(summary|description|runbook_url|#)", line)
        lines.append(line if is_text else re.sub(r"\b(\d+)([smh])\b", shorter, line))
    return "\n".join(lines)


def prometheus_yml(admin):
    return f"""
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: [alerts.yml]
scrape_configs:
  - job_name: msp-gateway
    static_configs: [{{targets: ["127.0.0.1:{admin}"]}}]
"""


def settings(public, admin, vendors, collector, folder):
    return f"""
listen.public = "127.0.0.1:{public}"
listen.admin = "127.0.0.1:{admin}"
auth.mode = "open"
limits.drain_delay = "0s"
pagination.scroll_idle_max = "1s"
pagination.scroll_expiry = "5s"
[wiv]
base_url = "http://127.0.0.1:{vendors}"
api_key_env = "WIV"
requests_per_minute = 6000
timeout = "1s"
connect_timeout = "1s"
[nable]
base_url = "http://127.0.0.1:{vendors}/ws/rest/V1/PSA_API"
api_key_env = "NABLE"
account_id = "SANDBOX"
[store]
directory = "{folder}/store"
[traces]
otlp_endpoint = "http://127.0.0.1:{collector}"
sample_ratio = 1
"""


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes spans, so that their counters move. tests/traces looks into them."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Stage:
    def __init__(self, folder):
        self.folder, self.running = folder, []
        self.public, self.admin, self.vendors, self.prometheus = free_ports(4)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.collector = server.server_port
        self.stop = threading.Event()
        self.asked = 0

    def start(self, *command, **environment):
        log = open(os.path.join(self.folder, f"{len(self.running)}.log"), "wb")
        environment = {"PATH": os.environ["PATH"], "HOME": self.folder, **environment}
        process = subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=log, stderr=log
        )
        self.running.append(process)
        return process

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def begin(self):
        at = "127.0.0.1"
        self.start(PROGRAM, "sandbox", "--listen", f"{at}:{self.vendors}", "--cases", "500")
        until(
            "the simulated vendors did not answer",
            20,
            lambda: ask(f"http://{at}:{self.vendors}/__sandbox/counts")[0] == 200,
        )
        path = self.write("gw.toml", settings(self.public, self.admin, self.vendors, self.collector, self.folder))
        keys = {"WIV": "sandbox-wiv-key", "NABLE": "sandbox-nable-key"}
        self.start(PROGRAM, "serve", "--config", path, **keys)
        with open(ALERTS, encoding="utf-8") as file:
            self.write("alerts.yml", seconds_for_minutes(file.read()))
        path = self.write("prometheus.yml", prometheus_yml(self.admin))
        self.start(
            "prometheus",
            f"--config.file={path}",
            f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address={at}:{self.prometheus}",
        )
        for name, port in (("gateway", self.admin), ("Prometheus", self.prometheus)):
            ready = f"http://{at}:{port}/" + ("readyz" if name == "gateway" else "-/ready")
            until(f"the {name} was not ready", 30, lambda: ask(ready)[0] == 200)

    def end(self):
        self.stop.set()
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def show_logs(self):
        for number in range(len(self.running)):
            with open(os.path.join(self.folder, f"{number}.log"), encoding="utf-8") as file:
                print("".join(file.readlines()[-5:]), file=sys.stderr)

    def keep_asking(self):
        """Two questions a second that nobody asked before, a hit, and a bill."""
        while not self.stop.wait(0.5):
            self.asked += 1
            base = f"http://127.0.0.1:{self.public}"
            body = json.dumps({"max_returned_items": 10, "n": self.asked}).encode()
            threading.Thread(
                target=ask, args=(f"{base}/v2/cases/msp/search", body, 35), daemon=True
            ).start()
            ask(f"{base}/msp/customers")
            ask(f"{base}/v1/billing/{time.strftime('%Y')}01")

    def query(self, expression):
        of = urllib.parse.urlencode({"query": expression})
        status, body = ask(f"http://127.0.0.1:{self.prometheus}/api/v1/query?{of}")
        if status != 200:
            fail(f"Prometheus refuses {expression}: {body.decode()[:300]}")
        return json.loads(body)["data"]["result"]

    def alerts(self):
        _, body = ask(f"http://127.0.0.1:{self.prometheus}/api/v1/alerts")
        found = json.loads(body)["data"]["alerts"] if body else []
        return {a["labels"]["alertname"]: a for a in found if a["state"] == "firing"}

    def fault(self, body):
        url = f"http://127.0.0.1:{self.vendors}/__sandbox/faults"
        if ask(url, json.dumps(body).encode())[0] != 200:
            fail("the simulated vendors take no faults")


def expressions(dashboard):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def check_dashboard(stage):
    with open(DASHBOARD, encoding="utf-8") as file:
        found = list(expressions(json.load(file)))
    for title, expression in found:
        plain = expression.replace("$__rate_interval", "5s").replace("$instance", ".*")
        # What shows nothing is as good as wrong, but for what cannot be there yet.
        empty = not stage.query(plain)
        if empty and not MAY_BE_EMPTY.search(plain) and "changes(" not in plain:
            fail(f"the panel {title!r} shows nothing: {expression}")
    return len(found)


def check_rules(stage):
    _, body = ask(f"http://127.0.0.1:{stage.prometheus}/api/v1/rules")
    rules = [rule for group in json.loads(body)["data"]["groups"] for rule in group["rules"]]
    for rule in rules:
        if rule["health"] != "ok":
            fail(f"{rule['name']} cannot be evaluated: {rule.get('lastError')}")
    return len(rules)


def main():
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(folder)
        try:
            run(stage)
        except SystemExit:
            stage.show_logs()
            raise
        finally:
            stage.end()


def run(stage):
    stage.begin()
    threading.Thread(target=stage.keep_asking, daemon=True).start()
    until("no question was counted", 20, lambda: stage.query("msp_gateway_requests_total"))
    # It finds its targets after five seconds, which are as many minutes to the rules here.
    until("an alert fires from the start", 10, lambda: not stage.alerts())
    calm = time.monotonic() + 8
    while time.monotonic() < calm:
        if stage.alerts():
            fail(f"alerts fire over a healthy gateway: {', '.join(stage.alerts())}")
        time.sleep(0.2)
    rules, panels = check_rules(stage), check_dashboard(stage)

    stage.fault([{"operation": "any", "kind": "latency", "ms": 60000}])
    alert = until(
        f"wiv hangs and {VENDOR_HANGS} did not fire", 40, lambda: stage.alerts().get(VENDOR_HANGS)
    )
    for name in ("summary", "description", "runbook_url"):
        words = alert["annotations"].get(name, "")
        if not words or "{{" in words or "<error" in words or "<no value>" in words:
            fail(f"{VENDOR_HANGS}: its {name} reads {words!r}")
    # Its state flips all the while; the alert must not.
    until_then = time.monotonic() + 8
    while time.monotonic() < until_then:
        firing = stage.alerts()
        if VENDOR_HANGS not in firing:
            fail(f"{VENDOR_HANGS} ended while wiv hangs")
        if strange := set(firing) - CONSEQUENCES:
            fail(f"wiv hangs, and these fire as well: {', '.join(strange)}")
        time.sleep(0.2)

    stage.fault({"clear": True})
    end = time.monotonic() + 60
    while firing := stage.alerts():
        if time.monotonic() > end:
            fail(f"wiv is back for a minute, and these still fire: {', '.join(firing)}")
        time.sleep(0.2)
    print(f"real Prometheus: {rules} rules, {panels} expressions; the page for a vendor that hangs")


main()
