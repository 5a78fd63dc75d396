// The last requests, and the story of one.

import { clock, count, bytes, h, ms, pill, plural, table } from "./dom.js";
import { every } from "./every.js";
import { get } from "./link.js";
import { OUTCOMES, ROUTES } from "./words.js";

const KINDS = { hit: "hit", stale: "stale", miss: "miss", collapsed: "shared", derived: "cut", projected: "cut", negative: "cut", error: "error", none: "none" };
const FILTERS = ["caller", "route", "status", "outcome", "slower_than"];

const statusKind = status => status >= 500 ? "bad" : status >= 400 ? "warn" : "good";
const outcomeKind = outcome => ({ error: "bad", stale: "warn", hit: "good" })[outcome] ?? "";

export function requests(main, state, id, query) {
  return id ? story(main, id) : list(main, query);
}

function list(main, query) {
  const choice = (name, all, title) => h("label", { for: name }, title, h("select", { id: name, name },
    h("option", { value: "" }, "any"), all.map(value => h("option", { value, selected: query.get(name) === value }, value))));
  const text = (name, title, placeholder) => h("label", { for: name }, title, h("input", { id: name, name, placeholder, spellcheck: false, value: query.get(name) ?? "" }));
  const follow = h("input", { type: "checkbox", id: "follow", checked: true });
  const form = h("form", { class: "panel filters", role: "search", "aria-label": "Filters" },
    text("caller", "Caller", "any"), choice("route", ROUTES, "Route"), text("status", "Status", "503 or 5xx"),
    choice("outcome", [...OUTCOMES, "none"], "Memory said"), text("slower_than", "Slower than", "250ms"),
    h("label", { class: "inline", for: "follow" }, follow, "Follow"));
  const matched = h("p", { class: "soft", role: "status" });
  const place = h("div", { class: "panel" });
  main.append(h("div", { class: "top" }, h("h1", {}, "Requests"), matched), form, place);

  const chosen = () => {
    const wanted = new URLSearchParams();
    for (const name of FILTERS) if (form.elements[name].value.trim()) wanted.set(name, form.elements[name].value.trim());
    return wanted;
  };
  async function draw() {
    const wanted = chosen();
    wanted.set("limit", "200");
    const told = await get(`../admin/requests?${wanted}`);
    matched.textContent = `${plural(told.matched, "request fits", "requests fit")} · up to ${count(told.kept_max)} are kept`;
    if (!told.requests.length) {
      place.replaceChildren(h("p", { class: "soft" }, "No kept request matches."));
      return;
    }
    place.replaceChildren(table("Requests", [
      ["Time", one => h("a", { href: `#/requests/${one.request_id}`, "aria-label": `Story of the request at ${clock(one.time)}` }, clock(one.time))],
      ["Status", one => [pill(String(one.status), statusKind(one.status)), one.code ? h("div", { class: "small soft" }, one.code) : null]],
      ["Caller", one => one.caller],
      ["Request", one => h("code", {}, `${one.method} ${one.path ?? one.route}`)],
      ["Memory said", one => pill(one.outcome, outcomeKind(one.outcome))],
      ["Took", one => ms(one.duration_ms), "num"],
      ["Vendor calls", one => one.vendor_calls || "–", "num"],
      ["Sent", one => [bytes(one.bytes), one.whole ? null : h("span", { class: "warn" }, " cut")], "num"],
    ], told.requests));
  }
  const drawing = every(2000, () => follow.checked || !place.firstChild ? draw() : undefined, place);
  let timer;
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      history.replaceState(null, "", `#/requests?${chosen()}`);
      draw().catch(why => place.replaceChildren(h("p", { class: "note bad", role: "alert" }, why.message)));
    }, 250);
  });
  form.addEventListener("submit", event => event.preventDefault());
  return drawing;
}

const STAGES = {
  slot_wait: ["waited for a free scroll", "stale"], budget_wait: ["waited for budget", "stale"],
  retry_pause: ["paused before a retry", "none"], vendor_call: ["vendor call", "miss"], not_sent: ["not sent", "error"],
};
const OPERATIONS = { customers: "customer list", search: "case search", continue: "next page of a scroll", billing: "billable services", invoices: "invoices" };
const PARTS = [["retry_pause", "Pausing before a retry", "none"], ["slot_wait", "Waiting for a free scroll", "stale"], ["budget_wait", "Waiting for budget", "cut"], ["vendor", "Vendor", "miss"], ["shared_wait", "Waiting for another request's call", "shared"], ["own", "Gateway itself", "hit"]];

function story(main, id) {
  const place = h("div", { class: "panel" });
  const back = h("a", { href: "#/requests" }, "All requests");
  main.append(h("div", { class: "top" }, h("h1", {}, "One request"), back), place);
  get(`../admin/requests/${encodeURIComponent(id)}`).then(one => {
    const times = one.times_ms, total = times.total || 0.001;
    const facts = [];
    const fact = (word, ...what) => facts.push(h("dt", {}, word), h("dd", {}, ...what));
    fact("Asked", h("code", {}, `${one.method} ${one.path ?? one.route}`), ` at ${clock(one.time)} by ${one.caller}`, one.peer ? ` from ${one.peer}` : "");
    fact("Answer", pill(String(one.status), statusKind(one.status)), " ", one.code ? h("code", {}, one.code) : "",
      ` in ${ms(times.total)}, ${bytes(one.bytes)} sent in another ${ms(times.sending)}`, one.whole ? "" : h("span", { class: "warn" }, " and cut before the end"));
    fact("Memory", pill(one.outcome, outcomeKind(one.outcome)), " ", one.why ?? (one.outcome === "none" ? "No cache was used." : ""),
      one.cache && one.cache.ttl_s !== null ? h("span", { class: "soft" }, one.cache.ttl_s >= 0 ? ` ${plural(one.cache.ttl_s, "second")} of freshness were left.` : ` Its freshness had been over for ${plural(-one.cache.ttl_s, "second")}.`) : "");
    fact("Request id", h("code", {}, one.request_id));
    const split = h("div", { class: "split", role: "img", "aria-label": PARTS.map(([name, words]) => `${words} ${ms(times[name])}`).join(", ") }, PARTS.map(([name, , kind]) => {
      const part = h("i", { class: `k-${kind}` });
      part.style.width = `${times[name] / total * 100}%`;
      return part;
    }));
    const where = h("section", { class: "panel" }, h("div", { class: "head" }, h("h2", {}, "Where the time went")), split,
      h("div", { class: "row" }, PARTS.map(([name, words, kind]) => h("span", { class: `key k-${kind}` }, `${words} ${ms(times[name])}`))));
    const longest = Math.max(times.total, ...one.stages.map(stage => stage.begun_ms + stage.took_ms)) || 1;
    const stages = h("section", { class: "panel stages" }, h("div", { class: "head" }, h("h2", {}, "Stages"), one.stages_more ? h("span", { class: "soft" }, `and ${plural(one.stages_more, "more", "more")}`) : null),
      one.stages.length ? table("Stages", [
        ["What", stage => [STAGES[stage.stage][0], stage.operation ? `: ${stage.vendor} ${OPERATIONS[stage.operation] ?? stage.operation}` : ""]],
        ["Outcome", stage => stage.outcome ? [pill(stage.outcome, stage.outcome === "ok" ? "good" : "bad"), stage.status ? ` ${stage.status}` : ""] : "–"],
        ["Lane", stage => stage.lane ?? "–"],
        ["When", stage => {
          const at = h("i", { class: `k-${stage.outcome && stage.outcome !== "ok" ? "error" : STAGES[stage.stage][1]}` });
          at.style.left = `${stage.begun_ms / longest * 100}%`;
          at.style.width = `${stage.took_ms / longest * 100}%`;
          return h("div", { class: "track" }, at);
        }],
        ["From", stage => ms(stage.begun_ms), "num"],
        ["Took", stage => ms(stage.took_ms), "num"],
      ], one.stages) : h("p", { class: "soft" }, one.cache?.collapsed ? "The request made no vendor call of its own." : "The request made no vendor call."));
    place.replaceChildren(h("dl", { class: "facts" }, facts));
    place.after(where, stages, h("details", { class: "panel" }, h("summary", {}, "As JSON"), h("pre", { tabIndex: 0 }, JSON.stringify(one, null, 2))));
  }).catch(why => place.replaceChildren(h("p", { class: "note bad", role: "alert" }, why.message)));
}
