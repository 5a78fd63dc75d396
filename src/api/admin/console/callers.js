// The callers: their requests, the vendor calls that these cost, and those that were saved.

import { bar, clock, count, h, percent, pill, table } from "./dom.js";
import { get } from "./link.js";
import { every } from "./every.js";

export function callers(main) {
  const place = h("div", { class: "panel" });
  main.append(h("div", { class: "top" }, h("h1", {}, "Callers"), h("p", { class: "soft" }, "Counted since the gateway started.")), place);

  async function draw() {
    const told = await get("../admin/callers");
    const caused = told.callers.reduce((sum, one) => sum + one.vendor_calls, 0) + told.background.vendor_calls;
    const rows = told.callers.map(one => ({ ...one, share: caused ? one.vendor_calls / caused : 0 }));
    rows.sort((one, other) => other.vendor_calls - one.vendor_calls || other.asked.total - one.asked.total);
    rows.push({ name: "gateway", background: true, vendor_calls: told.background.vendor_calls, share: caused ? told.background.vendor_calls / caused : 0 });
    rows.push({ name: "anonymous", background: true, asked: told.anonymous.asked });
    const dash = "–";
    place.replaceChildren(table("Callers", [
      ["Caller", one => one.background
        ? h("span", { class: "soft" }, one.name === "gateway" ? "gateway: refreshes and reading ahead" : "anonymous: no known key")
        : [h("a", { href: `#/requests?caller=${encodeURIComponent(one.name)}` }, one.name), " ", one.role === "operator" ? pill("operator") : null]],
      ["Vendor calls caused", one => one.vendor_calls === undefined ? dash
        : [bar(one.share, `${percent(one.share)} of all vendor calls`, one.share > 0.5 && told.callers.length > 1 ? "warn" : "miss"), h("span", { class: "small soft" }, `${count(one.vendor_calls)} · ${percent(one.share)}`)]],
      ["Saved", one => one.vendor_calls_saved === undefined ? dash : count(one.vendor_calls_saved), "num"],
      ["Asked", one => one.asked ? count(one.asked.total) : dash, "num"],
      ["Refused", one => one.asked ? number(one.asked.refused, "warn") : dash, "num"],
      ["Failed", one => one.asked ? number(one.asked.failed, "bad") : dash, "num"],
      ["In flight", one => one.background ? dash : count(one.requests_in_flight), "num"],
      ["Limit", one => one.background ? dash : one.requests_per_minute ? limit(one) : "none", "num"],
      ["Sees", one => one.background ? dash : sees(one)],
      ["Last use", one => one.last_used ? clock(one.last_used) : one.background ? dash : "never", "num"],
    ], rows));
  }
  return every(5000, draw, place);
}

/** A caller's limit, and what it has used of it in this minute at all gateways that share a store. */
const limit = one => one.requests_of_fleet === null ? `${count(one.requests_per_minute)}/min`
  : `${count(one.requests_of_fleet)} of ${count(one.requests_per_minute)}/min`;

const number = (value, kind) => value ? h("span", { class: kind }, count(value)) : "0";

function sees(one) {
  const billing = one.billing ? "" : ", no billing";
  if (!one.customers) return `all customers${billing}`;
  const more = one.customers_total - one.customers.length;
  return `${one.customers.join(", ")}${more > 0 ? ` and ${more} more` : ""}${billing}`;
}
