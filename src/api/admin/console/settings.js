// The settings in force, where each came from, and how the last reload went.

import { clock, h, pill } from "./dom.js";
import { every } from "./every.js";
import { get } from "./link.js";

export function settings(main) {
  const reload = h("div", {});
  const filter = h("input", { id: "filter", type: "search", placeholder: "timeout", spellcheck: false });
  const place = h("div", { class: "panel" });
  main.append(h("div", { class: "top" }, h("h1", {}, "Settings"), h("label", { for: "filter" }, "Show those with", filter)), reload, place);
  let told = { settings: [] };

  function list() {
    const wanted = filter.value.trim().toLowerCase();
    const shown = told.settings.filter(one => `${one.setting} ${one.value} ${one.source}`.toLowerCase().includes(wanted));
    let table = null, rows = [];
    for (const one of shown) {
      const at = one.setting.lastIndexOf(".");
      const head = one.setting.slice(0, Math.max(0, at));
      if (head !== table) {
        table = head;
        rows.push(h("tr", {}, h("th", { scope: "colgroup", colspan: 3 }, h("code", {}, head ? `[${head}]` : "lists"))));
      }
      rows.push(h("tr", {},
        h("td", {}, h("code", {}, one.setting.slice(at + 1)), " ", one.needs_restart ? pill("needs a restart") : null),
        h("td", {}, h("code", {}, one.value), one.waiting === null ? null : [" ", pill(`waits for a restart: ${one.waiting}`, "warn")]),
        h("td", { class: one.source === "default" ? "soft" : "" }, one.source)));
    }
    place.replaceChildren(h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Settings in force" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Setting", "In force", "Source"].map(title => h("th", { scope: "col" }, title)))),
      h("tbody", {}, rows.length ? rows : h("tr", {}, h("td", { colspan: 3, class: "soft" }, "No setting matches."))))));
  }

  async function draw() {
    told = await get("../admin/settings");
    const last = told.last_reload;
    const waiting = told.settings.filter(one => one.waiting !== null).length;
    if (!last) reload.replaceChildren(h("p", { class: "note" }, "The settings of the start are in force. There was no reload since."));
    else if (last.outcome === "refused") {
      reload.replaceChildren(h("div", { class: "note bad", role: "alert" },
        h("strong", {}, `The reload at ${clock(last.time)} was refused. The settings before it stay in force.`),
        h("pre", {}, last.why.split("; ").join("\n"))));
    } else {
      reload.replaceChildren(h("div", { class: waiting ? "note warn" : "note good" }, h("p", {}, `The reload at ${clock(last.time)} was applied.`),
        last.not_taken.map(line => h("p", {}, line))));
    }
    list();
  }
  filter.addEventListener("input", list);
  return every(5000, draw, place);
}
