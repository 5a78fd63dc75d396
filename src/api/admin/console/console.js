// The frame: pages, the operator's key, the stream of samples.

import { h } from "./dom.js";
import { forgetKey, get, hasKey, onKeyWanted, useKey, watch } from "./link.js";
import { callers } from "./callers.js";
import { explain } from "./explain.js";
import { now } from "./now.js";
import { purge } from "./purge.js";
import { requests } from "./requests.js";
import { settings } from "./settings.js";
import { snapshots } from "./snapshots.js";

const PAGES = { now, requests, snapshots, callers, explain, purge, settings };
const SECONDS_MAX = 600;

const main = document.getElementById("main");
const tabs = document.getElementById("tabs");
const link = document.getElementById("link");

/** Shared by all pages: the samples of the last ten minutes, and a callback for new ones. */
const state = { samples: [], hear: () => {} };
let page = { end() {} };
let locked = false;
let watching = false;

for (const name of Object.keys(PAGES)) {
  tabs.append(h("li", {}, h("a", { href: `#/${name}`, id: `tab-${name}` }, name[0].toUpperCase() + name.slice(1))));
}

function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  return { name: name in PAGES ? name : "now", rest: rest.join("/"), query: new URLSearchParams(query) };
}

/** Scrolls the list of pages to a tab. `scrollIntoView` would also move the start of the next Tab key. */
function reveal(tab) {
  const [from, to] = [tab.offsetLeft - tabs.offsetLeft, tab.offsetLeft - tabs.offsetLeft + tab.offsetWidth];
  if (from < tabs.scrollLeft) tabs.scrollLeft = from;
  else if (to > tabs.scrollLeft + tabs.clientWidth) tabs.scrollLeft = to - tabs.clientWidth;
}

function show() {
  const { name, rest, query } = place();
  for (const one of Object.keys(PAGES)) {
    const tab = document.getElementById(`tab-${one}`);
    if (one === name) { tab.setAttribute("aria-current", "page"); reveal(tab); }
    else tab.removeAttribute("aria-current");
  }
  document.title = `${name[0].toUpperCase() + name.slice(1)} · msp-gateway`;
  page.end();
  state.hear = () => {};
  if (locked) { page = { end() {} }; return; }
  main.replaceChildren();
  page = PAGES[name](main, state, rest, query) ?? { end() {} };
  page.end ??= () => {};
}

function say(kind, words) {
  link.querySelector(".dot").className = `dot ${kind}`;
  const place = link.querySelector(".words");
  if (place.textContent !== words) place.textContent = words;
}

function heard(sample) {
  state.samples.push(sample);
  while (state.samples.length > SECONDS_MAX) state.samples.shift();
  const ill = Object.entries(sample.vendors).filter(([, vendor]) => vendor.state === "degraded").map(([name]) => name);
  say(ill.length ? "degraded" : "ok", ill.length ? `${ill.join(" and ")} degraded` : "live");
  state.hear(sample);
}

async function begin() {
  try {
    const [history, status] = await Promise.all([get("../admin/history?window=10m"), get("../admin/status")]);
    state.samples = history.samples;
    document.getElementById("version").textContent = status.version;
  } catch (why) {
    if (locked) return;
    main.replaceChildren(h("p", { class: "note bad" }, `The gateway cannot be read: ${why.message}`));
    say("lost", "not connected");
    setTimeout(begin, 2000);
    return;
  }
  locked = false;
  show();
  if (watching) return;
  watching = true;
  watch(heard, kind => kind === "lost" && say("lost", "connection lost, trying again")).finally(() => { watching = false; });
}

/** The form that asks for a key. Nothing else is shown until there is one. */
function askKey(wasBad) {
  locked = true;
  page.end();
  page = { end() {} };
  state.samples = [];
  say("", "an operator's key is needed");
  const key = h("input", { id: "key", type: "password", autocomplete: "off", spellcheck: false, required: true });
  const form = h("form", { class: "panel form" },
    h("h1", {}, "An operator's key"),
    h("p", {}, "This listener can be reached from other machines, so the console needs an operator's key. The key stays in this tab and is sent to this gateway only."),
    wasBad ? h("p", { class: "note bad", role: "alert" }, "This is not the key of a caller with the role \"operator\".") : null,
    h("label", { for: "key" }, "Caller key"), key,
    h("div", { class: "row" }, h("button", {}, "Open the console")));
  form.addEventListener("submit", event => {
    event.preventDefault();
    useKey(key.value.trim());
    locked = false;
    begin();
  });
  main.replaceChildren(form);
  key.focus();
}

onKeyWanted(askKey);
addEventListener("hashchange", () => { show(); main.focus({ preventScroll: true }); scrollTo(0, 0); });
document.addEventListener("keydown", event => {
  // A digit opens a page, unless the focus is in a field.
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, select, textarea, dialog")) return;
  const name = Object.keys(PAGES)[Number(event.key) - 1];
  if (name) location.hash = `#/${name}`;
});
if (hasKey()) {
  const out = h("button", { class: "link small" }, "Forget the key");
  out.addEventListener("click", () => { forgetKey(); location.reload(); });
  link.append(out);
}
begin();
