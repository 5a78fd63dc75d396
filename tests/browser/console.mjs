// The operators' console: every page in light and dark, wide and narrow, by mouse and by keyboard; what it
// shows of a vendor that dies, of a purge, of a stale answer; and nothing at all without a key.

import assert from "node:assert/strict";
import { before, test } from "node:test";

import { accessible, gateway, open, redis, selfSigned, shot } from "./kit/stage.mjs";

const PAGES = ["now", "requests", "snapshots", "callers", "explain", "purge", "settings"];
const SEARCH = "/v2/cases/msp/search";

let world;
before(async () => {
  world = await gateway();
  await traffic(world);
});

function ask(world, path, options = {}) {
  const headers = { "X-API-Key": world.key, ...options.headers };
  return fetch(`${world.public}${path}`, { ...options, headers }).then(async answer => { await answer.arrayBuffer(); return answer; });
}

function search(world, body, customer) {
  const path = customer ? `${SEARCH}?customer_id=${customer}` : SEARCH;
  return ask(world, path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

/** What a morning looks like: hits, misses, drill-downs, a refusal, a wrong key. */
async function traffic(world) {
  for (let round = 0; round < 40; round += 1) {
    await ask(world, "/msp/customers?fields=id,name");
    await search(world, { max_returned_items: 25, date_range: { start: "2026-11-01", end: "2026-11-30" } });
  }
  await search(world, { date_range: { start: "2026-10-01", end: "2026-10-31" } });
  await search(world, {}, "org_2");
  await ask(world, "/v1/billing/202610");
  await ask(world, "/msp/customers?fields=nonsense");
  await ask(world, "/msp/customers", { headers: { "X-API-Key": "k-nobody" } });
}

/** The page, once it shows what it is about. */
async function ready(page, name) {
  await page.waitForSelector("main h1");
  const waits = { now: ".card", requests: "tbody tr", snapshots: "tbody tr", callers: "tbody tr", settings: "tbody tr", explain: "#target", purge: "#will" };
  await page.waitForSelector(`main ${waits[name]}`);
}

for (const colorScheme of ["light", "dark"]) {
  for (const width of [1280, 360]) {
    test(`every page in ${colorScheme} at ${width} pixels`, async () => {
      const page = await open(`${world.admin}/`, { colorScheme, viewport: { width, height: 900 } });
      assert.equal(new URL(page.url()).pathname, "/console/");
      for (const name of PAGES) {
        await page.goto(`${world.admin}/console/#/${name}`);
        await ready(page, name);
        if (name === "now") await page.waitForFunction(() => document.querySelectorAll("svg.chart path").length > 3);
        if (name === "explain") {
          await page.getByRole("button", { name: "Explain" }).click();
          await page.waitForSelector("ol.steps");
        }
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= width, `${name}: ${wide} pixels on a screen of ${width}`);
        await accessible(page);
        await shot(page, `console-${name}-${colorScheme}-${width}`);
      }
      await page.goto(`${world.admin}/console/#/requests?outcome=miss`);
      await page.locator("tbody tr a").first().click();
      await page.waitForSelector(".split");
      await accessible(page);
      await shot(page, `console-story-${colorScheme}-${width}`);
      page.quiet();
    });
  }
}

test("a vendor that dies is seen within two seconds", async () => {
  const world = await gateway();
  const page = await open(`${world.admin}/console/`);
  const card = page.locator("#vendor-wiv");
  await card.locator(".pill", { hasText: /^ok$/ }).waitFor();
  world.killVendors();
  const died = Date.now();
  // Callers go on asking what is not remembered.
  const asking = Promise.allSettled([...Array(12).keys()].map(at => search(world, { marker: at })));
  await card.locator(".pill", { hasText: "degraded" }).waitFor();
  const seen = Date.now() - died;
  assert.match(await card.innerText(), /open: nothing is sent|half open/);
  assert.match(await page.locator("#link").innerText(), /wiv degraded/);
  assert.ok(seen <= 2_000, `seen after ${seen} ms`);
  await asking;
  await shot(page, "console-vendor-died");
  await accessible(page);
  page.quiet();
});

test("a purge by mouse says what it does, asks once, and lowers the count", async () => {
  const world = await gateway();
  await traffic(world);
  const page = await open(`${world.admin}/console/`);
  await page.getByRole("link", { name: "Purge" }).click();
  await page.locator("#held", { hasText: "3 searches remembered" }).waitFor();
  await page.getByLabel("One kind of answer").check();
  await page.getByLabel("Hard: remove, and end page tokens").check();
  assert.match(await page.locator("#will").innerText(), /^Removes case searches with their pages\. Page tokens of these answers become invalid/);
  // Who says no has changed nothing.
  await page.getByRole("button", { name: "Purge…" }).click();
  await page.getByRole("button", { name: "Cancel" }).click();
  assert.match(await page.locator("#held").innerText(), /^3 searches/);
  await page.getByRole("button", { name: "Purge…" }).click();
  const dialog = page.getByRole("dialog");
  assert.match(await dialog.innerText(), /Purge hard\?/);
  await accessible(page);
  await shot(page, "console-purge-asks");
  await dialog.getByRole("button", { name: "Purge" }).click();
  await page.locator("form .note.good", { hasText: /\d+ entries purged/ }).waitFor();
  await page.locator("#held", { hasText: "0 searches remembered" }).waitFor();
  page.quiet();
});

test("a purge from the snapshots takes one customer's away", async () => {
  const world = await gateway();
  await traffic(world);
  const page = await open(`${world.admin}/console/#/snapshots`);
  await page.locator("tr", { hasText: "Cases of org_2" }).getByRole("button").click();
  await page.getByRole("dialog").getByRole("button", { name: "Purge" }).click();
  await page.locator("tr", { hasText: "Cases of org_2" }).locator(".pill", { hasText: "purged" }).waitFor();
  page.quiet();
});

test("a stale search is explained as a person would say it", async () => {
  const world = await gateway('[cases.open]\nfresh = "1s"\nstale = "1h"');
  // Few rows: a list that is still being read is as fresh as can be.
  const range = { start: new Date().toISOString().slice(0, 10), end: "2030-11-30" };
  await search(world, { date_range: range });
  const page = await open(`${world.admin}/console/#/explain`);
  await page.locator("#body").fill(JSON.stringify({ date_range: range }));
  const said = page.locator("ol.steps");
  for (let tries = 0; tries < 20; tries += 1) {
    await page.getByRole("button", { name: "Explain" }).click();
    await said.waitFor();
    if (/stale/.test(await said.locator("li.last").innerText())) break;
    await page.waitForTimeout(300);
  }
  const [first, , third, last] = await said.locator("li").allInnerTexts();
  assert.match(first, /^An answer is cached\. The vendor gave it \d+ s ago\.$/);
  assert.match(third, /^Its range is still open, so such answers are fresh for 1 s, may be given while a refresh runs until they are 1 h old/);
  assert.equal(last, "The answer is stale: it would be served at once, and one refresh would ask wiv for the first page of this search, as a refresh, behind the callers that wait.");
  await page.getByLabel("Path and query").fill("/nowhere");
  await page.getByRole("button", { name: "Explain" }).click();
  await page.locator(".note.bad", { hasText: "not a path of the public listener" }).waitFor();
  page.wrong = page.wrong.filter(line => !line.includes("400"));
  page.quiet();
});

test("the story of a failure names the vendor's calls", async () => {
  const world = await gateway();
  const fault = { operation: "customers", kind: "status", status: 503 };
  await fetch(`${world.vendors}/__sandbox/faults`, { method: "POST", body: JSON.stringify(fault) });
  await ask(world, "/msp/customers");
  const page = await open(`${world.admin}/console/#/requests?status=5xx`);
  await page.locator("tbody tr a").first().click();
  await page.locator(".stages tbody tr").first().waitFor();
  assert.match(await page.locator(".stages").innerText(), /vendor call: wiv customer list[\s\S]*server_error[\s\S]*503/);
  assert.match(await page.locator("main").innerText(), /Nothing usable was cached, and the vendor gave no answer\./);
  await shot(page, "console-story-failure");
  page.quiet();
});

test("beyond loopback nothing is shown without an operator's key", async () => {
  const world = await gateway("", "", { MSP_GATEWAY__LISTEN__ADMIN: "0.0.0.0:0" });
  await traffic(world);
  const admin = world.admin.replace("0.0.0.0", "127.0.0.1");
  const page = await open(`${admin}/`);
  const forgive = () => { page.wrong = page.wrong.filter(line => !/40[13]/.test(line)); };
  for (const name of PAGES) {
    await page.goto(`${admin}/console/#/${name}`);
    await page.waitForSelector("#key");
    const shown = await page.locator("main").innerText();
    assert.match(shown, /An operator's key/);
    assert.ok(!/pages|org_|searches|listen/.test(shown.replace(/listener/g, "")), shown);
    assert.equal(await page.locator("main table, main svg, main .card").count(), 0);
  }
  await accessible(page);
  await shot(page, "console-key");
  await page.fill("#key", "mspgw_not_a_key_0123456789abcdef0123456789");
  await page.getByRole("button", { name: "Open the console" }).click();
  await page.getByRole("alert").waitFor();
  await page.fill("#key", world.key);
  await page.keyboard.press("Enter");
  await page.waitForSelector("tbody tr, .panel");
  await page.goto(`${admin}/console/#/now`);
  await page.waitForSelector("#vendor-wiv");
  // Kept for this tab, and in no address.
  await page.reload();
  await page.waitForSelector("#vendor-wiv");
  assert.ok(!page.url().includes(world.key));
  assert.equal(await page.evaluate(() => localStorage.length + document.cookie.length), 0);
  const other = await open(`${admin}/console/`);
  await other.waitForSelector("#key");
  // A purge goes out with the key, too.
  await page.goto(`${admin}/console/#/purge`);
  await page.getByLabel("Everything").check();
  await page.getByRole("button", { name: "Purge…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Purge" }).click();
  await page.locator("form .note.good").waitFor();
  forgive();
  page.quiet();
});

test("everything is reached by keyboard", async () => {
  const page = await open(`${world.admin}/console/`);
  await page.waitForSelector("#vendor-wiv");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the page");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  for (const [at, name] of PAGES.entries()) {
    await page.keyboard.press(String(at + 1));
    await ready(page, name);
    assert.match(page.url(), new RegExp(`#/${name}$`));
    assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  }
  // To the story of a request, and back.
  await page.keyboard.press("2");
  await ready(page, "requests");
  const focused = () => page.evaluate(() => `${document.activeElement.tagName} ${document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent}`);
  for (let tabs = 0; tabs < 20 && !/Story of the request/.test(await focused()); tabs += 1) await page.keyboard.press("Tab");
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(outline, "solid", "the focus is seen");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".split");
  await page.goBack();
  // A purge that is thought better of.
  await page.keyboard.press("6");
  await ready(page, "purge");
  for (let tabs = 0; tabs < 20 && !/^BUTTON Purge…/.test(await focused()); tabs += 1) await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  assert.match(await focused(), /^BUTTON Purge…/, "the focus is back where it was");
  assert.equal(await page.locator("form [role=status]").innerText(), "");
  page.quiet();
});

test("lost lines, a certificate that ends, and the gateways of a fleet are shown", async () => {
  const world = await gateway("", "", { MSP_GATEWAY__LOG__LEVEL: "debug" }, "/dev/full");
  const page = await open(`${world.admin}/console/`);
  const around = page.locator("#around");
  await around.getByText(/^none dropped in/).first().waitFor();
  // Each line that the full disk does not take is lost.
  world.killVendors();
  for (let turn = 0; turn < 5; turn += 1) await search(world, { marker: turn });
  await around.locator("dd.bad", { hasText: /^\d+ dropped in/ }).waitFor();
  await accessible(page);
  page.quiet();

  const certificate = selfSigned(1);
  const tls = `[listen.public_tls]\ncertificate_file = "${certificate.certificate}"\nprivate_key_file = "${certificate.key}"`;
  const soon = await gateway(tls);
  const other = await open(`${soon.admin}/console/`);
  await other.locator("#around dd.bad", { hasText: /^ends in (23 h|1 d)/ }).waitFor();
  other.quiet();

  const server = await redis();
  const shared = `[store]\nkind = "valkey"\n[store.valkey]\naddresses = ["127.0.0.1:${server.port}"]\n[pagination]\ntoken_key_file = "${server.secret}"`;
  const one = await gateway(shared);
  await gateway(shared);
  const fleet = await open(`${one.admin}/console/`);
  const told = fleet.locator("#around");
  await told.locator("dt", { hasText: "Gateways that share it" }).waitFor();
  await told.locator("dd", { hasText: /^2$/ }).waitFor();
  await told.locator(".pill.good", { hasText: "ok" }).waitFor();
  await shot(fleet, "console-fleet");
  server.kill();
  await told.locator(".pill.bad", { hasText: "away" }).waitFor();
  await told.getByText("2 at the last contact; this gateway continues alone").waitFor();
  await accessible(fleet);
  fleet.quiet();
});

test("a hold-down is lifted from its card", async () => {
  const world = await gateway();
  const fault = { operation: "customers", kind: "status", status: 429, retry_after: 300, times: 1 };
  await fetch(`${world.vendors}/__sandbox/faults`, { method: "POST", body: JSON.stringify(fault) });
  await ask(world, "/msp/customers");
  const page = await open(`${world.admin}/console/`);
  const card = page.locator("#vendor-wiv");
  await card.getByText(/the vendor asked for a wait; [45] min/).waitFor();
  await shot(page, "console-hold-down");
  // The card is replaced each second, and a button must stay under the pointer that is about to click it.
  await page.getByRole("button", { name: "Ask it again…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Ask again" }).click();
  await page.getByText("wiv is asked again.").waitFor();
  await card.locator(".pill", { hasText: /^ok$/ }).waitFor();
  assert.equal((await ask(world, "/msp/customers")).status, 200);
  page.quiet();
});
