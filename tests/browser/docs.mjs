// The page at /docs: shows every route, tries requests with the key typed there, and asks nobody else.

import assert from "node:assert/strict";
import { before, test } from "node:test";

import { accessible, gateway, open, shot } from "./kit/stage.mjs";

let world;
before(async () => {
  world = await gateway();
});

test("every route is shown, and nothing is asked elsewhere", async () => {
  const page = await open(`${world.public}/docs`);
  await page.waitForSelector("article");
  const api = await (await fetch(`${world.public}/openapi.json`)).json();
  const shown = await page.$$eval("article h3", all => all.map(one => one.textContent));
  assert.deepEqual([...shown].sort(), Object.keys(api.paths).sort());
  await shot(page, "docs");
  await accessible(page);
  page.quiet();
});

test("a request is sent with the key that was typed", async () => {
  const page = await open(`${world.public}/docs`);
  await page.waitForSelector("article");
  const article = page.locator("article", { has: page.locator("h3", { hasText: /^\/msp\/customers$/ }) });
  await article.getByRole("button", { name: "Send" }).click();
  await article.locator(".result .bad", { hasText: "401" }).waitFor();
  // The browser itself notes a refusal in the console; this one was meant.
  page.wrong = page.wrong.filter(line => !line.includes("401"));
  await page.fill("#key", world.key);
  await article.getByLabel("fields").fill("id,name");
  await article.getByRole("button", { name: "Send" }).click();
  await article.locator(".result .good", { hasText: "200" }).waitFor();
  const result = await article.locator(".result").innerText();
  assert.match(result, /cache-status/i);
  assert.match(result, /customer_name/);
  assert.ok(!result.includes(world.key), "the curl line names a variable, not the key");
  assert.match(result, /fields=id,name/);

  const search = page.locator("article", { has: page.locator("h3", { hasText: "/v2/cases/msp/search" }) });
  await search.locator("textarea").fill('{"max_returned_items":2}');
  for (const method of ["POST", "QUERY"]) {
    await search.getByLabel("Method").selectOption(method);
    await search.getByRole("button", { name: "Send" }).click();
    await search.locator(".result", { hasText: `-X ${method}` }).waitFor();
    assert.match(await search.locator(".result").innerText(), /^200/m);
  }
  await shot(page, "docs-tried");
  await accessible(page);
  page.quiet();
});

test("a dark and a narrow page are readable, too", async () => {
  const page = await open(`${world.public}/docs`, { colorScheme: "dark", viewport: { width: 420, height: 800 } });
  await page.waitForSelector("article");
  const { wide, narrow } = await page.evaluate(() => ({ wide: document.documentElement.scrollWidth, narrow: innerWidth }));
  assert.ok(wide <= narrow, `${wide} pixels on a screen of ${narrow}`);
  await shot(page, "docs-dark");
  await accessible(page);
  page.quiet();
});
