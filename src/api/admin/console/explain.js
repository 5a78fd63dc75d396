// What would happen to a request now, as steps.

import { h, plural, span } from "./dom.js";
import { get } from "./link.js";
import { VENDORS } from "./words.js";

const CALLS = {
  customers: "for its customer list", search: "for the first page of this search", continue: "for the next page of the scroll",
  billing: "for the billable services of this contract", invoices: "for the invoices of this month",
};
const GRADES = { open: "Its range is still open", recent: "Its range closed a few days ago", closed: "Its range closed long ago" };
const LANES = {
  interactive: "ahead of all background work, because a caller waits", refresh: "as a refresh, behind the callers that wait",
  read_ahead: "as reading ahead", export: "with the exports, behind everything else",
};

const asked = call => `${VENDORS[call.vendor]} ${CALLS[call.operation] ?? `(${call.operation})`}`;

/** The steps of one explanation, the last one the outcome. */
export function steps(told) {
  const { policy } = told;
  const said = [];
  if (told.derived_from) said.push("A complete search for all customers is remembered, and this customer's rows can be cut from it.");
  if (!told.held) said.push(told.under_way ? "No answer is cached yet, but a vendor call for it is in progress." : "No cached answer matches it.");
  else if (told.negative) said.push(`The vendor said ${span(told.age_s)} ago that there is no such thing. This answer is cached.`);
  else said.push(`An answer is cached. The vendor gave it ${span(told.age_s)} ago.`);
  if (told.snapshot) {
    const how = { growing: "and more may come", complete: "which is all of them", cut: "and the walk was cut at a limit", broken: "and no more will come" };
    said.push(`It has ${plural(told.snapshot.rows, "row")}, ${how[told.snapshot.end] ?? told.snapshot.end}.`);
  }
  const fresh = span(policy.fresh_s), stale = span(policy.fresh_s + policy.stale_s), error = span(policy.fresh_s + policy.on_error_s);
  said.push(`${policy.grade ? `${GRADES[policy.grade] ?? policy.grade}, so such` : "Such"} answers are fresh for ${fresh}, may be given while a refresh runs until they are ${stale} old, and may stand in for a failing vendor until ${error}.`);
  said.push(outcome(told));
  return said;
}

function outcome(told) {
  const call = told.call;
  if (told.negative) return "It would be refused from memory at once. No vendor is called.";
  switch (told.held ? told.standing : "none") {
    case "fresh": return "It would be answered from memory at once. No vendor is called.";
    case "stale": return call
      ? `The answer is stale: it would be served at once, and one refresh would ask ${asked(call)}, ${LANES[told.lane]}.`
      : "The answer is stale: it would be served at once. A refresh is in progress already.";
    case "on_error": return call
      ? `The answer is too old to be served at once. ${asked(call)} would be asked, ${LANES[told.lane]}. If no answer comes within two seconds, the old one is served.`
      : "The answer is too old to be served at once. The request would wait at most two seconds for the refresh that is in progress, and then get the old answer.";
    default: return call
      ? `The request would wait while ${asked(call)} is asked, ${LANES[told.lane]}.`
      : "The request would wait for the vendor call that is in progress.";
  }
}

export function explain(main, _state, _rest, query) {
  const method = h("select", { id: "method" }, ["GET", "POST", "QUERY"].map(value => h("option", { value }, value)));
  method.value = query.get("method") ?? "POST";
  const target = h("input", { id: "target", required: true, spellcheck: false, value: query.get("target") ?? "/v2/cases/msp/search" });
  const body = h("textarea", { id: "body", spellcheck: false, value: query.get("body") ?? '{"date_range": {"start": "2026-11-01", "end": "2026-11-30"}}' });
  const caller = h("select", { id: "caller" }, h("option", { value: "" }, "the caller that sees most"));
  const bodyLabel = h("label", { for: "body" }, "Body", body);
  const place = h("div", { class: "stack", "aria-live": "polite" });
  const form = h("form", { class: "panel form" },
    h("label", { for: "method" }, "Method", method), h("label", { for: "target" }, "Path and query", target), bodyLabel,
    h("label", { for: "caller" }, "Asked by", caller), h("div", { class: "row" }, h("button", {}, "Explain")));
  const update = () => { bodyLabel.hidden = method.value === "GET"; };
  method.addEventListener("input", update);
  update();
  get("../admin/callers").then(told => {
    caller.append(...told.callers.map(one => h("option", { value: one.name }, one.name)));
    if (query.get("caller")) caller.value = query.get("caller");
  }).catch(() => {});
  form.addEventListener("submit", async event => {
    event.preventDefault();
    const wanted = new URLSearchParams({ method: method.value, target: target.value.trim() });
    if (method.value !== "GET") wanted.set("body", body.value);
    if (caller.value) wanted.set("caller", caller.value);
    history.replaceState(null, "", `#/explain?${wanted}`);
    try {
      const told = await get(`../admin/explain?${wanted}`);
      const parts = told.parts ? Object.entries(told.parts).filter(([, part]) => part) : [["", told]];
      place.replaceChildren(...parts.map(([name, part]) => {
        const said = steps(part);
        return h("section", { class: "panel" }, h("div", { class: "head" }, h("h2", {}, name ? `What would happen: ${name}` : "What would happen"), part.identity ? h("span", { class: "soft small" }, "identity ", h("code", {}, part.identity)) : null),
          h("ol", { class: "steps" }, said.map((text, at) => h("li", { class: at === said.length - 1 ? "last" : "" }, h("span", {}, text)))));
      }), h("details", { class: "panel" }, h("summary", {}, "As JSON"), h("pre", { tabIndex: 0 }, JSON.stringify(told, null, 2))));
    } catch (why) {
      place.replaceChildren(h("p", { class: "note bad" }, why.message));
    }
  });
  main.append(h("div", { class: "top" }, h("h1", {}, "Explain"), h("p", { class: "soft" }, "No vendor is called for it.")), form, place);
}
