// The cached case searches.

import { bar, bytes, count, h, pill, plural, span, table } from "./dom.js";
import { every } from "./every.js";
import { get } from "./link.js";
import { confirmed, told } from "./purge.js";

const DAY = { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" };
const day = text => new Date(`${text}T00:00:00Z`).toLocaleDateString("en-GB", DAY);

/** A search in plain words. */
export function words(one) {
  const whose = one.customer ? `Cases of ${one.customer}` : "Cases of all customers";
  const when = !one.start ? "" : one.start === one.end ? ` on ${day(one.start)}` : ` from ${day(one.start)} to ${day(one.end)}`;
  return `${whose}${when}`;
}

const STANDING = { fresh: ["fresh", "good"], stale: ["stale", "warn"], on_error: ["on error only", "warn"], expired: ["expired", "bad"] };

function growth(one) {
  if (one.growing) return pill("being read", "good");
  const states = { growing: ["in part", ""], complete: ["whole", "good"], cut: ["cut at a limit", "warn"], broken: ["broken", "bad"] };
  return pill(...states[one.state]);
}

export function snapshots(main) {
  const outcome = h("p", { role: "status" });
  const total = h("div", { class: "soft" });
  const place = h("div", { class: "panel" });
  main.append(h("div", { class: "top" }, h("h1", {}, "Snapshots"), total), outcome, place);

  async function purge(one) {
    try {
      const purged = await confirmed(one.customer ? { customer: one.customer } : { kind: "cases" });
      if (purged === null) return;
      outcome.className = "note good";
      outcome.textContent = told(purged);
      await draw();
    } catch (why) {
      outcome.className = "note bad";
      outcome.textContent = why.message;
    }
  }

  async function draw() {
    const listed = await get("../admin/snapshots?limit=200");
    total.replaceChildren(`${plural(listed.total, "search", "searches")} · ${bytes(listed.bytes)} of ${bytes(listed.bytes_max)}`,
      bar(listed.bytes / listed.bytes_max, "memory of snapshots in use"));
    if (!listed.snapshots.length) {
      place.replaceChildren(h("p", { class: "soft" }, "No search is cached yet."));
      return;
    }
    place.replaceChildren(table("Snapshots", [
      ["Search", one => [words(one), one.other_members ? h("div", { class: "mono small soft" }, one.other_members) : null,
        h("div", { class: "small soft" }, one.current ? `identity ${one.identity}` : `identity ${one.identity} · kept for its page tokens`)]],
      ["Standing", one => [pill(...STANDING[one.standing]), one.refreshing ? [" ", pill("refreshing")] : null, one.purged ? [" ", pill("purged")] : null]],
      ["Rows", one => [count(one.rows), " ", growth(one)], "num"],
      ["Age", one => one.age_s === null ? "no answer yet" : span(one.age_s), "num"],
      ["Memory", one => bytes(one.bytes), "num"],
      ["Waiting", one => one.readers ? plural(one.readers, "reader") : "–", "num"],
      ["Last used", one => `${span(one.unused_s)} ago`, "num"],
      ["", one => {
        const button = h("button", { class: "link" }, one.customer ? `Purge ${one.customer}…` : "Purge cases…");
        button.addEventListener("click", () => purge(one));
        return button;
      }],
    ], listed.snapshots));
  }
  return every(3000, draw, place);
}
