"""What `overload`, `restarts`, `slow` and `stalls` share: builds, simulated vendors, a gateway, and load beside it.

Standard library only. Everything is on loopback, and ends with the program that uses this.
"""

import atexit
import hashlib
import http.client
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KEY = "mspgw_key_of_the_load_0123456789abcdef"
# Puts the socket on standard input where a service manager does.
PASS = 'exec 3<&0 0</dev/null; LISTEN_PID=$$ exec "$0" "$@"'
# Twice the connections of the largest part: a gateway gives callers half of its files.
FILES_MAX = 20_000

running = []


def fail(why):
    print(f"{os.path.basename(sys.argv[0])}: {why}", file=sys.stderr)
    sys.exit(1)


def end(process):
    if process.poll() is None:
        process.kill()
    process.wait()


atexit.register(lambda: [end(process) for process in running])


def need(program, package):
    """The program of a Debian package, installed where that is possible."""
    for _ in range(2):
        for folder in os.environ.get("PATH", "").split(":"):
            if os.access(os.path.join(folder, program), os.X_OK):
                return
        if os.geteuid() == 0:
            subprocess.run(
                ["apt-get", "install", "-y", "--no-install-recommends", package],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
            )
    fail(f"needs the Debian package {package}; as root: apt-get install {package}")


def build(debug):
    """Builds the gateway and the load; the folder of both."""
    command = ["cargo", "build", "--locked", "--bin", "msp-gateway", "--example", "load"]
    if subprocess.run(command + ([] if debug else ["--release"]), cwd=ROOT, check=False).returncode:
        fail("the build failed")
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    return os.path.join(target, "debug" if debug else "release")


def files_allowed(wanted=FILES_MAX):
    """Raises this program's limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return
        except (ValueError, PermissionError):
            fail(f"needs {wanted} open files (ulimit -n), and may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def line_with(process, start, patience=30):
    """The word behind `start` in what the process prints."""
    until = time.monotonic() + patience
    # Not `select`: it takes files below 1,024 only.
    readable = select.poll()
    readable.register(process.stdout, select.POLLIN)
    while time.monotonic() < until:
        if not readable.poll(200):
            continue
        line = process.stdout.readline().decode()
        if not line:
            break
        if line.startswith(start):
            return line.removeprefix(start).split()[0]
    fail(f"{process.args[0]} did not say {start!r}")


class Stage:
    """Simulated vendors, and settings for gateways in front of them."""

    def __init__(self, folder, settings="", rate=60_000, vendors=()):
        self.binary = os.path.join(folder, "msp-gateway")
        self.loader = os.path.join(folder, "examples", "load")
        self.work = tempfile.TemporaryDirectory()
        vendors = self.start(
            [self.binary, "sandbox", "--listen", "127.0.0.1:0", "--requests-per-minute", "0", *vendors]
        )
        self.vendors = address = line_with(vendors, "wiv    http://")
        self.config = os.path.join(self.work.name, "config.toml")
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(f"""
[[callers]]
name = "load"
key_hash = "sha256:{digest}"
customers = ["*"]
[wiv]
base_url = "http://{address}"
api_key_env = "WIV_KEY"
requests_per_minute = {rate}
[nable]
base_url = "http://{address}/ws/rest/V1/PSA_API"
api_key_env = "NABLE_KEY"
account_id = "SANDBOX"
requests_per_minute = 60000
[log]
access = false
level = "warn"
{settings}""")

    def start(self, command, **more):
        # Unbuffered: what is read early would not be seen by select.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0, **more)
        running.append(process)
        return process

    def gateway(self, held=None, notify=None, files=None, log=None, **environment):
        """A gateway; over a held socket if there is one. Returns it with its two addresses."""
        variables = {
            "PATH": os.environ.get("PATH", ""),
            "WIV_KEY": "sandbox-wiv-key",
            "NABLE_KEY": "sandbox-nable-key",
            "MSP_GATEWAY__LISTEN__PUBLIC": "127.0.0.1:0",
            "MSP_GATEWAY__LISTEN__ADMIN": "127.0.0.1:0",
            **environment,
        }
        command = [self.binary, "serve", "--config", self.config]
        more = {"stdin": subprocess.DEVNULL}
        if log is not None:
            more["stderr"] = log
        if held is not None:
            variables |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "public"}
            command = ["/bin/sh", "-c", PASS] + command
            more["stdin"] = held.fileno()
        if notify is not None:
            variables["NOTIFY_SOCKET"] = notify
        if files is not None:
            more["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        process = self.start(command, env=variables, **more)
        public = line_with(process, "public http://")
        return process, public, line_with(process, "admin http://")

    def load(self, address, *arguments, key=KEY):
        command = [self.loader, "--address", address, "--key", key, *map(str, arguments)]
        return self.start(command, stdin=subprocess.PIPE)


def asked(load):
    """How many requests the load has made."""
    load.stdin.write(b".")
    return int(load.stdout.readline())


def tally(load):
    """Ends the load; what came of it."""
    load.stdin.close()
    return json.loads(load.stdout.readall())


def get(address, path, timeout=10, host="localhost", key=None, method="GET", body=None):
    name, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(name, int(port), timeout=timeout)
    headers = {"Host": host, **({"X-API-Key": key} if key else {})}
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def metric(address, name):
    for line in get(address, "/metrics")[1].decode().splitlines():
        if line.startswith(f"msp_gateway_{name} "):
            return float(line.split()[-1])
    return 0.0


def memory(process):
    """Resident and most ever resident, in KiB."""
    with open(f"/proc/{process.pid}/status", encoding="utf-8") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["VmRSS"].split()[0]), int(lines["VmHWM"].split()[0])


def processor_seconds(process):
    with open(f"/proc/{process.pid}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def holding(address="127.0.0.1:0"):
    """A listening socket as a service manager holds it."""
    name, port = address.rsplit(":", 1)
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((name, int(port)))
    held.listen(4096)
    return held


def terminate(process, patience):
    """SIGTERM; the exit code, and how long it took."""
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(patience)
    except subprocess.TimeoutExpired:
        fail("a gateway does not leave")
    return code, time.monotonic() - begun
