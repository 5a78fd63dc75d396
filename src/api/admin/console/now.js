// The state now, in the last ten minutes, and in the last day.

import { chart } from "./chart.js";
import { bar, bytes, count, h, ms, percent, pill, plural, rate, span } from "./dom.js";
import { agreed } from "./ask.js";
import { get, post } from "./link.js";
import { VENDORS } from "./words.js";

const LANES = { interactive: "callers wait", refresh: "refreshes", read_ahead: "reading ahead", export: "exports" };
const FROM_MEMORY = ["hit", "stale", "derived", "projected", "negative"];

const sum = (samples, of) => samples.reduce((all, sample) => all + of(sample), 0);
const each = of => sample => sample.seconds > 0 ? of(sample) / sample.seconds : 0;
const minute = of => sample => each(of)(sample) * 60;
const vendors = of => sample => sum(Object.values(sample.vendors), of);

function tile(name, unit) {
  const value = h("dd", {}), note = h("dd", { class: "more" });
  return { element: h("div", { class: "tile" }, h("dt", {}, name), value, note), set(number, more = "", kind = "") {
    value.replaceChildren(h("span", { class: kind }, number), unit ? h("small", {}, unit) : "");
    note.textContent = more;
  } };
}

export function now(main, state) {
  let window = "10m";
  let day = [];
  let over = false;
  let status = null;
  const outcome = h("p", { role: "status" });

  const tiles = {
    requests: tile("Requests", "/s"), ratio: tile("From memory"), calls: tile("Vendor calls", "/min"), saved: tile("Calls saved", "/min"),
    hit: tile("Hits, p99"), miss: tile("Misses, p99"), failed: tile("Failures", "/min"), flight: tile("In flight"),
  };
  const cards = h("section", { class: "two", "aria-label": "Vendors" });
  const choice = h("div", { class: "switch", role: "group", "aria-label": "Time shown" },
    [["10m", "10 minutes"], ["24h", "24 hours"]].map(([value, words]) => {
      const button = h("button", { type: "button", "aria-pressed": String(value === window) }, words);
      button.addEventListener("click", async () => {
        window = value;
        choice.querySelectorAll("button").forEach(one => one.setAttribute("aria-pressed", String(one === button)));
        if (value === "24h") await loadDay();
        charts();
      });
      return button;
    }));

  const perSecond = number => `${rate(number)}/s`;
  const perMinute = number => `${rate(number)}/min`;
  const drawn = [
    chart("Answers", [
      { name: "hit", kind: "hit", of: each(one => one.answers.hit) },
      { name: "cut from memory", kind: "cut", of: each(one => one.answers.derived + one.answers.projected + one.answers.negative) },
      { name: "stale", kind: "stale", of: each(one => one.answers.stale) },
      { name: "shared a call", kind: "shared", of: each(one => one.answers.collapsed) },
      { name: "miss", kind: "miss", of: each(one => one.answers.miss) },
      { name: "no cache asked", kind: "none", of: each(one => one.answers.none) },
      { name: "error", kind: "error", of: each(one => one.answers.error) },
    ], perSecond, { stacked: true }),
    chart("Latency", [
      { name: "hits p50", kind: "hit", of: one => one.latency_ms.hit.p50, faint: true },
      { name: "hits p99", kind: "hit", of: one => one.latency_ms.hit.p99 },
      { name: "misses p50", kind: "miss", of: one => one.latency_ms.miss.p50, faint: true },
      { name: "misses p99", kind: "miss", of: one => one.latency_ms.miss.p99 },
    ], ms, { log: true }),
    chart("Vendor calls", [
      { name: "made", kind: "miss", of: minute(vendors(one => one.calls)) },
      { name: "failed", kind: "error", of: minute(vendors(one => one.failed)) },
      { name: "saved", kind: "hit", of: minute(vendors(one => one.saved)), faint: true },
    ], perMinute),
    chart("From memory", [{ name: "part of the answers", kind: "hit", of: one => one.hit_ratio }], percent, { most: 1 }),
  ];
  const memory = h("section", { class: "panel" });
  const scrolls = h("section", { class: "panel" });
  const around = h("section", { class: "panel", id: "around" });

  main.append(
    h("div", { class: "top" }, h("h1", {}, "Now"), choice), outcome,
    h("dl", { class: "tiles" }, Object.values(tiles).map(one => one.element)),
    cards,
    h("section", { class: "two", "aria-label": "Charts" }, drawn.map(one => one.element)),
    h("div", { class: "two" }, memory, scrolls, around));

  async function loadDay() {
    try { day = (await get("../admin/history?window=24h")).samples; } catch { /* the next minute tries again */ }
  }

  function charts() {
    const samples = window === "10m" ? state.samples : day;
    drawn.forEach(one => one.draw(samples));
  }

  function numbers() {
    const last = state.samples.at(-1);
    if (!last) return;
    const few = state.samples.slice(-10), many = state.samples.slice(-60);
    const seconds = sum(few, one => one.seconds) || 1, minutes = (sum(many, one => one.seconds) || 60) / 60;
    const answers = one => sum(Object.values(one.answers), value => value);
    const memoryGave = sum(many, one => sum(FROM_MEMORY, word => one.answers[word]));
    const asked = memoryGave + sum(many, one => one.answers.miss + one.answers.collapsed + one.answers.error);
    tiles.requests.set(rate(sum(few, answers) / seconds), "last 10 s");
    tiles.ratio.set(asked ? percent(memoryGave / asked) : "–", "last minute");
    const calls = sum(many, vendors(one => one.calls)), failed = sum(many, vendors(one => one.failed));
    tiles.calls.set(rate(calls / minutes), failed ? `${count(failed)} failed` : "none failed");
    tiles.saved.set(rate(sum(many, vendors(one => one.saved)) / minutes), "last minute");
    const latest = of => many.map(of).findLast(value => value !== null && value !== undefined);
    const half = (kind, p99) => p99 === undefined ? "none in a minute" : `p50 ${ms(latest(one => one.latency_ms[kind].p50))}`;
    for (const kind of ["hit", "miss"]) {
      const p99 = latest(one => one.latency_ms[kind].p99);
      tiles[kind].set(ms(p99), half(kind, p99));
    }
    const broken = sum(many, one => one.statuses.failed);
    tiles.failed.set(rate(broken / minutes), `${plural(sum(many, one => one.statuses.refused), "request")} refused`, broken ? "bad" : "");
    tiles.flight.set(count(last.requests_in_flight), plural(last.connections, "connection"));
    memory.replaceChildren(h("div", { class: "head" }, h("h2", {}, "Memory")), stores(last));
    scrolls.replaceChildren(h("div", { class: "head" }, h("h2", {}, "Scrolls and exports")), rows([
      ["Walks running", last.scrolls.open, last.scrolls.max],
      ["Scrolls open at wiv", last.scrolls.at_vendor, last.scrolls.at_vendor_max],
    ], count), h("dl", { class: "facts" },
      h("dt", {}, "Searches that wait"), h("dd", { class: last.scrolls.waiting ? "warn" : "" }, count(last.scrolls.waiting)),
      h("dt", {}, "Exports being sent"), h("dd", {}, count(last.exports_running))));
    around.replaceChildren(h("div", { class: "head" }, h("h2", {}, "Outputs, store and certificates")), h("dl", { class: "facts" }, surroundings()));
    // The cards are replaced, but the focus stays where it was.
    const focused = cards.contains(document.activeElement) ? document.activeElement.id : "";
    cards.replaceChildren(...Object.entries(last.vendors).map(([name, vendor]) => card(name, vendor)));
    if (focused) document.getElementById(focused)?.focus();
  }

  function rows(list, say) {
    return h("div", { class: "lanes" }, list.flatMap(([name, held, most, more]) => {
      const part = most ? held / most : 0;
      return h("div", { class: "lane" }, h("span", {}, name), bar(part, `${name}: ${say(held)} of ${say(most)}`, part > 0.9 ? "warn" : ""),
        h("span", { class: "num small" }, `${say(held)} of ${say(most)}`), h("span", { class: "num small soft" }, more ?? ""));
    }));
  }

  const stores = last => rows(last.stores.map(one => [one.store, one.bytes, one.bytes_max,
    one.store === "snapshots" && one.bytes >= one.bytes_max ? "full: new searches are refused"
      : one.evicted ? `${count(one.evicted)} evicted` : plural(one.entries, "entry", "entries")]), bytes);

  /** What this gateway does while the shared store is away. */
  const WITHOUT = {
    nothing: "this gateway continues alone",
    vendor_calls: "this gateway makes no vendor calls",
    everything: "this gateway refuses every request",
  };

  /** What the gateway writes to and depends on: logs, spans, the store, certificates. */
  function surroundings() {
    const ten = state.samples, shown = span(sum(ten, one => one.seconds));
    const facts = [];
    const fact = (word, kind, ...what) => facts.push(h("dt", {}, word), h("dd", { class: kind }, ...what));
    const dropped = (word, number) => fact(word, number ? "bad" : "", number ? `${count(number)} dropped in ${shown}` : `none dropped in ${shown}`);
    dropped("Log lines", sum(ten, one => one.dropped.log_lines));
    dropped("Spans", sum(ten, one => one.dropped.spans));
    if (!status) return facts;
    const { store, certificates } = status;
    if (store.state === "off") fact("Store", "", "off: a restart forgets");
    else fact("Store", "", pill(store.state, store.state === "ok" ? "good" : "bad"), ` ${bytes(store.bytes)}`);
    if (store.replicas !== null) fact("Gateways that share it", store.state === "ok" ? "" : "bad", store.state === "ok" ? count(store.replicas) : `${count(store.replicas)} at the last contact; ${WITHOUT[store.refuses]}`);
    if (store.detached) fact("Lists that only this gateway can continue", "warn", count(store.detached));
    for (const { listener, ends_in_s: left } of certificates) {
      fact(`Certificate, ${listener}`, left < 2 * 86_400 ? "bad" : left < 14 * 86_400 ? "warn" : "", left > 0 ? `ends in ${span(left)}` : "has ended: callers refuse to connect");
    }
    return facts;
  }

  function card(name, vendor) {
    if (vendor.state === "disabled") {
      return h("article", { class: "panel card", id: `vendor-${name}` }, h("div", { class: "head" }, h("h2", {}, VENDORS[name]), pill("not configured")));
    }
    const open = vendor.circuit !== "closed";
    const facts = [];
    const fact = (word, kind, ...what) => facts.push(h("dt", {}, word), h("dd", { class: kind }, ...what));
    if (vendor.circuit === "open") {
      fact("Circuit", "bad", "open: nothing is sent", vendor.probe_in_ms ? `, next probe in ${ms(vendor.probe_in_ms)}` : ", a probe may go now");
    } else fact("Circuit", open ? "warn" : "", open ? "half open: a probe is under way" : "closed");
    if (vendor.hold_down_ms) {
      const resume = h("button", { class: "link", id: `resume-${name}` }, "Ask it again…");
      resume.addEventListener("click", () => lift(name));
      fact("Hold-down", "bad", `the vendor asked for a wait; ${span(vendor.hold_down_ms / 1000)} left `, resume);
    }
    fact("Credential", vendor.key_rejected ? "bad" : "", vendor.key_rejected ? "rejected by the vendor: calls are refused until it is replaced" : "accepted");
    if (vendor.background_percent !== null) fact("Coming back", "warn", `background work has ${vendor.background_percent} % of the rate`);
    const ten = state.samples, calls = sum(ten, one => one.vendors[name].calls), failed = sum(ten, one => one.vendors[name].failed);
    fact("Calls", "", `${plural(calls, "call")} in ${span(sum(ten, one => one.seconds))}, `,
      h("span", { class: failed ? "bad" : "" }, failed ? `${count(failed)} failed` : "none failed"), `, ${count(sum(ten, one => one.vendors[name].saved))} saved`);
    const lanes = h("div", { class: "lanes" }, Object.entries(LANES).flatMap(([lane, words]) => {
      const left = vendor.budget_by_lane[lane], waits = vendor.queued[lane];
      return h("div", { class: "lane" }, h("span", {}, words), bar(vendor.budget_max ? left / vendor.budget_max : 0, `${words}: ${left} of ${vendor.budget_max} calls left`, left ? "good" : "bad"),
        h("span", { class: "num small" }, `${count(left)} of ${count(vendor.budget_max)} left`),
        h("span", { class: `num small ${waits ? "warn" : "soft"}` }, waits ? `${count(waits)} wait` : "none wait"));
    }));
    return h("article", { class: `panel card ${vendor.state}`, id: `vendor-${name}` },
      h("div", { class: "head" }, h("h2", {}, VENDORS[name]), vendor.state === "ok" ? pill("ok", "good") : pill("degraded", "bad"),
        h("span", { class: "soft small" }, `${count(vendor.rate_limit)} calls/min · ${vendor.in_flight} of ${vendor.concurrency_limit} places in use`)),
      h("dl", { class: "facts" }, facts), lanes);
  }

  async function lift(name) {
    try {
      const text = `${VENDORS[name]} asked the gateway to send no calls for a while. This ends the wait, and calls go out at once. If the vendor still rejects them, a new wait begins.`;
      if (!await agreed(`Ask ${VENDORS[name]} again now?`, text, "Ask again")) return;
      const told = await post("../admin/resume", { vendor: name });
      outcome.className = "note good";
      outcome.textContent = told.resumed ? `${VENDORS[name]} is asked again.` : `${VENDORS[name]} was not waiting any more.`;
    } catch (why) {
      outcome.className = "note bad";
      outcome.textContent = why.message;
    }
  }

  function draw() {
    numbers();
    if (window === "10m") charts();
  }
  state.hear = draw;
  draw();
  charts();
  const beats = [
    setInterval(async () => {
      if (window !== "24h") return;
      await loadDay();
      if (!over) charts();
    }, 60_000),
    // Facts that change too seldom to be in a sample.
    setInterval(() => look(), 5_000),
  ];
  async function look() {
    try { status = await get("../admin/status"); } catch { /* the next look tells */ }
  }
  look();
  return { end() { over = true; beats.forEach(clearInterval); } };
}
