// Prints what pages show, as JSON by URL. Usage: look.mjs BROWSER_TOOLS CHROMIUM URL...

import { createRequire } from "node:module";
import { join } from "node:path";

const [tools, chromium, ...urls] = process.argv.slice(2);
const playwright = createRequire(join(tools, "here.js"))("playwright-core");
const browser = await playwright.chromium.launch({ executablePath: chromium, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
const shown = {};
for (const url of urls) {
  const page = await browser.newPage();
  await page.goto(url);
  await page.waitForSelector("main tbody tr, main .card, main .panel");
  // Until samples of a few seconds have come.
  await page.waitForTimeout(2500);
  shown[url] = (await page.locator("main").innerText()).replace(/[ \t]+/g, " ");
  await page.close();
}
await browser.close();
console.log(JSON.stringify(shown));
