"""Runs the parts and writes the table. Called by tests/bench/run."""

import argparse
import contextlib
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time

from parts import PARTS
from parts.questions import HITS
from report import HEAD, MIB, Report
from servers import Bench

OUT = pathlib.Path(__file__).resolve().parent / "out"
PEERS = ["nginx", "varnish", "haproxy", "bare", "caddy", "envoy"]
PEERS_QUICK = ["nginx", "varnish", "bare"]


def arguments():
    args = argparse.ArgumentParser(prog="tests/bench/run")
    args.add_argument("--quick", action="store_true",
                      help="rounds of one second, 100,000 entries, nginx, Varnish and bare only")
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--seconds", type=int, help="of a round; 4, or 1 with --quick")
    args.add_argument("--connections", type=int, default=32)
    args.add_argument("--rate", type=int, default=8000, help="requests a second of the open loops")
    args.add_argument("--part", action="append", choices=list(PARTS), help="only this part; may be repeated")
    args.add_argument("--only", action="append", choices=list(HITS), help="only this hit; may be repeated")
    args.add_argument("--peers", action="append", choices=PEERS, help="only this peer; may be repeated")
    args = args.parse_args()
    if args.seconds is None:
        args.seconds = 1 if args.quick else 4
    if args.peers is None:
        args.peers = PEERS_QUICK if args.quick else PEERS
    return args


def settings(args):
    """What a reader of the figures must know of how they came about."""
    def said(*argv):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(argv, capture_output=True, text=True, timeout=20,
                                  env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"})
            lines = (done.stdout + done.stderr).strip().splitlines()
            if lines:
                return lines[0].strip()
        return "unknown"

    found = {"rounds": args.rounds, "seconds of a round": args.seconds, "connections": args.connections,
             "peers": " ".join(args.peers), "kernel": platform.release(), "cores": os.cpu_count(),
             "load average at the start": "%.2f %.2f %.2f" % os.getloadavg(), "commit": said("git", "rev-parse", "HEAD")}
    versions = {"nginx": ("nginx", "-v"), "varnish": ("varnishd", "-V"), "haproxy": ("haproxy", "-v")}
    found |= {peer: said(*argv) for peer, argv in versions.items() if peer in args.peers}
    return found


def main():
    args = arguments()
    # Ended from outside, it still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report(settings(args))
    begun = time.monotonic()
    print(HEAD, flush=True)
    for part in args.part or PARTS:
        # /dev/shm: nginx keeps its cache in files, and these should be in memory.
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        since = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="msp-bench-", dir=base, ignore_cleanup_errors=True) as work:
            with contextlib.ExitStack() as stack:
                PARTS[part](Bench(work, stack), args, report)
        report.facts[f"seconds of the part {part}"] = round(time.monotonic() - since)
    report.settings["load average at the end"] = "%.2f %.2f %.2f" % os.getloadavg()
    report.settings["seconds in all"] = round(time.monotonic() - begun)
    report.write(OUT)
    for name, held in report.rss.items():
        print(f"RSS after {name}: {held / MIB:.1f} MiB")
    for name, fact in report.facts.items():
        print(f"{name}: {fact}")
    print(f"{report.settings['seconds in all']} s; written: tests/bench/out/results.txt, .md, .json, .svg")


if __name__ == "__main__":
    main()
