"""What was measured: rows of ratios, and the table that shows them."""

import contextlib
import io
import json
import statistics

import plot

MIB = 1 << 20


class Report:
    def __init__(self, settings):
        self.settings, self.rows, self.rates, self.facts, self.rss = settings, [], {}, {}, {}

    def add(self, what, peer, values, target=None, higher_is_better=True, **more):
        """A row: the median, least and greatest of the rounds' values, held against a target."""
        median = statistics.median(values)
        good = None
        if target is not None:
            good = median >= target if higher_is_better else median <= target
        self.rows.append({"what": what, "peer": peer, "median": median, "min": min(values), "max": max(values),
                          "rounds": len(values), "target": target, "higher_is_better": higher_is_better,
                          "good": good, **more})
        print(line(self.rows[-1]), flush=True)

    def compare(self, what, peer, ours, theirs, target=None):
        """A row of two servers' paired rounds: answers per second of a core, and per second."""
        (ours_wall, ours_core), (their_wall, their_core) = zip(*ours), zip(*theirs)
        ratio = lambda a, b: [x / y for x, y in zip(a, b)]
        self.add(what, peer, ratio(ours_core, their_core), target,
                 wall=statistics.median(ratio(ours_wall, their_wall)),
                 ours_k=statistics.median(ours_core) / 1000, its_k=statistics.median(their_core) / 1000)

    def absent(self, what, peer, why):
        """A row that could not be measured says why, in its place."""
        self.rows.append({"what": what, "peer": peer, "absent": why})
        print(line(self.rows[-1]), flush=True)

    def memory(self, part, bench, names, cap):
        """What the servers hold after a part; the gateway's against its cache's bound and 128 MiB."""
        for name in names:
            if name in bench.procs:
                self.rss[f"{part}: {name}"] = bench.rss(name)
        for name in names:
            if name.startswith("gateway"):
                held = bench.rss(name)
                self.add(f"RSS after {part} / (cache + 128 MiB)", name, [held / (cap + 128 * MIB)], 1.0, False,
                         rss=held, bound=cap + 128 * MIB)

    def text(self):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            for name, value in self.settings.items():
                print(f"{name}: {value}")
            print()
            print(HEAD)
            for row in self.rows:
                print(line(row))
            print()
            for name, held in self.rss.items():
                print(f"RSS after {name}: {held / MIB:.1f} MiB")
            for name, fact in self.facts.items():
                print(f"{name}: {fact}")
        return out.getvalue()

    def markdown(self):
        """The rows as the table of README.md."""
        lines = ["| what | against | median | least–greatest | target | |", "|---|---|---|---|---|---|"]
        for row in self.rows:
            if "absent" in row:
                lines.append(f"| {row['what']} | {row['peer']} | – | {row['absent']} | | |")
                continue
            sign = "≥" if row["higher_is_better"] else "≤"
            target = "" if row["target"] is None else f"{sign} {row['target']:.2f}"
            mark = {None: "", True: "met", False: "missed"}[row["good"]]
            lines.append(f"| {row['what']} | {row['peer']} | {row['median']:.2f} | {row['min']:.2f}–{row['max']:.2f} "
                         f"| {target} | {mark} |")
        return "\n".join(lines) + "\n"

    def write(self, folder):
        folder.mkdir(exist_ok=True)
        whole = {"settings": self.settings, "rows": self.rows, "rates": self.rates, "facts": self.facts,
                 "rss": self.rss}
        (folder / "results.json").write_text(json.dumps(whole, indent=1) + "\n")
        (folder / "results.txt").write_text(self.text())
        (folder / "results.md").write_text(self.markdown())
        (folder / "results.svg").write_text(plot.svg([row for row in self.rows if "absent" not in row]))


HEAD = (f"{'what':<52} {'against':<22} {'median':>7} {'min':>7} {'max':>7} {'target':>7} {'by wall':>7} "
        f"{'k/core-s':>8} {'its':>8}")


def line(row):
    if "absent" in row:
        return f"{row['what']:<52} {row['peer']:<22} not measured: {row['absent']}"
    target = ""
    if row["target"] is not None:
        target = f"{'>=' if row['higher_is_better'] else '<='}{row['target']:.2f}"
    mark = {None: "", True: "met", False: "missed"}[row["good"]]
    more = f"{row['wall']:7.2f} {row['ours_k']:8.1f} {row['its_k']:8.1f}" if "wall" in row else " " * 25
    return (f"{row['what']:<52} {row['peer']:<22} {row['median']:7.2f} {row['min']:7.2f} {row['max']:7.2f} "
            f"{target:>7} {more}  {mark}").rstrip()
