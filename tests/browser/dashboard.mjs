// The demo's dashboard: of another origin than the gateway, shows customers, types and pages of cases, says
// how fresh they are, goes on and back, exports, and tells a vendor's failure in words.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { before, test } from "node:test";

import { accessible, demo, open, shot } from "./kit/stage.mjs";

let world;
before(async () => {
  world = await demo();
});

const ids = page => page.$$eval("#cases tbody tr td:first-child", cells => cells.map(cell => cell.textContent));
const said = (page, selector, pattern) =>
  page.waitForFunction(([place, text]) => new RegExp(text).test(document.querySelector(place).textContent), [selector, pattern]);

test("customers, types and pages are shown with their age", async () => {
  const page = await open(world.dashboard);
  await said(page, "#where", "^Page 1");
  await said(page, "#types-age", "old");
  assert.notEqual(new URL(world.dashboard).origin, new URL(world.public).origin);
  assert.ok(await page.locator("#customer option").count() > 10);
  assert.ok(await page.locator("#types tbody tr").count() >= 6);
  assert.match(await page.textContent("#cases-age"), /(fetched now|from memory), \d+ s old/);
  const first = await ids(page);
  assert.equal(first.length, 25);

  // On, on and back: the same page again, for a page token may be used twice.
  await page.click("#next");
  await said(page, "#where", "^Page 2");
  const second = await ids(page);
  assert.deepEqual(first.filter(id => second.includes(id)), []);
  await page.click("#next");
  await said(page, "#where", "^Page 3");
  await page.click("#back");
  await said(page, "#where", "^Page 2");
  assert.deepEqual(await ids(page), second);
  await page.click("#back");
  await said(page, "#where", "^Page 1");
  assert.deepEqual(await ids(page), first);
  assert.ok(await page.isDisabled("#back"));
  // An amount that no JavaScript number holds keeps its digits.
  const amounts = await page.$$eval("#cases tbody td:last-child", cells => cells.map(cell => cell.textContent));
  assert.ok(amounts.includes("9007199254740993"), amounts.join(" "));
  await shot(page, "dashboard");
  await accessible(page);
  page.quiet();
});

test("a customer's cases are paged to their end and exported whole", async () => {
  const page = await open(world.dashboard);
  await said(page, "#where", "^Page 1");
  await page.selectOption("#customer", "org_1");
  await page.waitForFunction(() => {
    const names = [...document.querySelectorAll("#cases tbody td:nth-child(2)")].map(cell => cell.textContent);
    return names.length && new Set(names).size === 1;
  });
  const all = await ids(page);
  for (let at = 2; !await page.isDisabled("#next"); at++) {
    await page.click("#next");
    await said(page, "#where", `^Page ${at}`);
    all.push(...await ids(page));
  }
  assert.equal(new Set(all).size, all.length);
  await said(page, "#where", "the last");
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#export")]);
  const text = await readFile(await download.path(), "utf8");
  for (const id of all) assert.ok(text.includes(id), id);
  assert.equal(download.suggestedFilename(), "cases.csv");
  await page.waitForFunction(() => document.body.ariaBusy === "false");
  page.quiet();
});

test("what a dead vendor leaves is said in words", async () => {
  const page = await open(world.dashboard);
  await said(page, "#where", "^Page 1");
  await fetch(`${world.vendors}/__sandbox/faults`, { method: "POST", body: JSON.stringify({ vendor: "wiv", down: true }) });
  // Days that nobody asked for before: nothing is remembered of them.
  await page.fill("#start", "2026-01-01");
  await page.fill("#end", "2026-01-02");
  await page.click("#show");
  await page.waitForSelector("#trouble:not([hidden])");
  const words = await page.textContent("#trouble");
  assert.match(words, /wiv/);
  // Nothing of the question before stands there as if it were the answer.
  assert.deepEqual([await ids(page), await page.isDisabled("#next")], [[], true]);
  await fetch(`${world.vendors}/__sandbox/faults`, { method: "POST", body: '{"clear":true}' });
  await shot(page, "dashboard-down");
  await accessible(page);
});
