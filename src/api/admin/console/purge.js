// Purges: what one will do, one question before it, and its result.

import { agreed } from "./ask.js";
import { h, plural } from "./dom.js";
import { get, post } from "./link.js";
import { KINDS } from "./words.js";

const MEANT = { cases: "case searches with their pages", customers: "the customer list", billing: "billable services and invoices" };

/** What a purge will do, in words. */
export function meaning(what) {
  const whom = what.customer ? `everything that mentions the customer ${what.customer}`
    : what.kind ? MEANT[what.kind] ?? what.kind : "everything that is cached";
  return what.soft === false
    ? `Removes ${whom}. Page tokens of these answers become invalid, so callers that are paging start again. The next request for each answer calls the vendor.`
    : `Marks ${whom} as stale. Answers are still served from memory, and each is refreshed at its next request. Page tokens stay valid.`;
}

/** Asks once; resolves to the number of entries that ended, or null where the person said no. */
export async function confirmed(what) {
  const title = what.soft === false ? "Purge hard?" : "Purge softly?";
  return await agreed(title, meaning(what), "Purge") ? (await post("../admin/purge", what)).purged : null;
}

export const told = purged => purged === 0 ? "Nothing of it was cached." : `${plural(purged, "entry", "entries")} purged.`;

export function purge(main, _state, _rest, query) {
  const radio = (name, value, words, checked) => h("label", { class: "inline" }, h("input", { type: "radio", name, value, checked }), words);
  const customer = h("input", { id: "customer", spellcheck: false, placeholder: "org_1", value: query.get("customer") ?? "" });
  // Searches come first: they are what is purged most.
  const all = new Set([...Object.keys(MEANT), ...KINDS]);
  const kind = h("select", { id: "kind" }, [...all].map(name => h("option", { value: name }, name)));
  const which = query.get("customer") ? "customer" : "kind";
  const outcome = h("p", { role: "status" });
  const will = h("p", { class: "note", id: "will" });
  const customerLabel = h("label", { for: "customer" }, "Customer id", customer);
  const kindLabel = h("label", { for: "kind" }, "Kind", kind);
  const form = h("form", { class: "panel form" },
    h("fieldset", {}, h("legend", {}, "What"), h("div", { class: "choices" },
      radio("which", "customer", "One customer", which === "customer"), radio("which", "kind", "One kind of answer", which === "kind"), radio("which", "all", "Everything", false))),
    customerLabel, kindLabel,
    h("fieldset", {}, h("legend", {}, "How"), h("div", { class: "choices" },
      radio("how", "soft", "Soft: refresh at the next request", true), radio("how", "hard", "Hard: remove, and end page tokens", false))),
    will,
    h("div", { class: "row" }, h("button", { id: "go" }, "Purge…")),
    outcome);
  const asked = () => {
    const chosen = form.elements.which.value;
    const target = chosen === "customer" ? { customer: customer.value.trim() } : chosen === "kind" ? { kind: kind.value } : { all: true };
    return form.elements.how.value === "hard" ? { ...target, soft: false } : target;
  };
  const update = () => {
    const chosen = form.elements.which.value;
    customerLabel.hidden = chosen !== "customer";
    kindLabel.hidden = chosen !== "kind";
    const missing = chosen === "customer" && !customer.value.trim();
    will.textContent = missing ? "Enter a customer id." : meaning(asked());
    form.querySelector("#go").disabled = missing;
  };
  form.addEventListener("input", update);
  form.addEventListener("submit", async event => {
    event.preventDefault();
    try {
      const purged = await confirmed(asked());
      if (purged === null) return;
      outcome.className = "note good";
      outcome.textContent = told(purged);
      await remembered();
    } catch (why) {
      outcome.className = "note bad";
      outcome.textContent = why.message;
    }
  });
  const held = h("p", { class: "soft", id: "held" });
  async function remembered() {
    const { snapshots } = await get("../admin/status");
    held.textContent = `${plural(snapshots.entries, "search", "searches")} remembered.`;
  }
  main.append(h("div", { class: "top" }, h("h1", {}, "Purge"), held), form);
  update();
  remembered().catch(() => {});
}
