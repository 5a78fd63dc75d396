// What every test of a page needs: the program, a browser, and pages that notice what goes wrong.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createPort } from "node:net";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";

const require = createRequire(join(process.env.BROWSER_TOOLS, "here.js"));
const { chromium } = require("playwright-core");
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

// Without the network flags, chromium looks for its maker's hosts at every start.
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];
/** How long a page may take for anything that a test waits for. */
const PATIENCE_MS = 20_000;
/** The caller key of gateways that `gateway` starts. */
export const KEY = "mspgw_key_of_the_pages_0123456789abcdef";

const endings = [];
after(async () => {
  for (const end of endings.reverse()) await end();
});

/** Ends a program with the tests. */
function ending(child) {
  endings.push(() => new Promise(resolve => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve();
    child.once("exit", resolve);
    child.kill("SIGINT");
    setTimeout(() => child.kill("SIGKILL"), 8_000).unref();
  }));
}

/** A folder that goes with the tests. */
function scratch() {
  const folder = mkdtempSync(join(tmpdir(), "pages-"));
  endings.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Starts the program; resolves to the values behind the patterns once it has printed all of them, and to `kill`. */
async function started(args, patterns, environment = {}, errors = "") {
  const stderr = errors ? openSync(errors, "w") : "pipe";
  const child = spawn(process.env.MSP_GATEWAY, args, { env: { ...process.env, ...environment }, stdio: ["ignore", "pipe", stderr] });
  let said = "";
  ending(child);
  return await new Promise((resolve, reject) => {
    const hear = piece => {
      said += piece;
      const found = Object.entries(patterns).map(([name, pattern]) => [name, said.match(pattern)?.[1]]);
      if (found.every(([, value]) => value)) resolve({ ...Object.fromEntries(found), kill: () => child.kill("SIGKILL") });
    };
    child.stdout.on("data", hear);
    child.stderr?.on("data", piece => { said += piece; });
    child.once("exit", code => reject(new Error(`${args.join(" ")} ended with ${code}: ${said}`)));
  });
}

/** The demo on free ports: `public`, `admin`, `vendors`, `dashboard` (URLs) and `key`. */
export function demo(...more) {
  return started(
    ["demo", "--public", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--dashboard", "127.0.0.1:0", ...more],
    { public: /^gateway +(\S+)/m, admin: /^admin +(\S+)/m, vendors: /^simulated vendors +(\S+)/m, dashboard: /^dashboard +(\S+)/m, key: /^KEY=(\S+)/m },
  );
}

/**
 * Simulated vendors and a gateway with more `settings`; its caller `pages` has `KEY`. `variables` override
 * settings, and standard error goes to the file `errors`. `killVendors` ends the vendors at once.
 */
export async function gateway(settings = "", caller = "", variables = {}, errors = "") {
  const { vendors, kill } = await started(["sandbox", "--listen", "127.0.0.1:0", "--requests-per-minute", "0"], { vendors: /^wiv +(\S+)/m });
  const config = join(scratch(), "config.toml");
  writeFileSync(config, `
[listen]
public = "127.0.0.1:0"
admin = "127.0.0.1:0"
[[callers]]
name = "pages"
key_hash = "sha256:${createHash("sha256").update(KEY).digest("hex")}"
role = "operator"
customers = ["*"]
${caller}
[wiv]
base_url = "${vendors}"
api_key_env = "WIV_KEY"
requests_per_minute = 60000
[nable]
base_url = "${vendors}/ws/rest/V1/PSA_API"
api_key_env = "NABLE_KEY"
account_id = "SANDBOX"
requests_per_minute = 60000
[log]
access = false
level = "warn"
${settings}`);
  const keys = { WIV_KEY: "sandbox-wiv-key", NABLE_KEY: "sandbox-nable-key", ...variables };
  const told = await started(["serve", "--config", config], { public: /^public (\S+)/m, admin: /^admin (\S+)/m }, keys, errors);
  return { ...told, vendors, key: KEY, killVendors: kill };
}

/** A store that gateways share: its `port`, a file with a `secret` for them, and `kill`. */
export async function redis() {
  const free = createPort().listen(0, "127.0.0.1");
  await new Promise(resolve => free.once("listening", resolve));
  const { port } = free.address();
  await new Promise(resolve => free.close(resolve));
  const child = spawn("redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--save", ""], { stdio: ["ignore", "pipe", "ignore"] });
  ending(child);
  await new Promise(resolve => child.stdout.on("data", piece => String(piece).includes("Ready to accept connections") && resolve()));
  const secret = join(scratch(), "secret");
  writeFileSync(secret, "secret-of-the-pages-0123456789abcdef", { mode: 0o600 });
  return { port, secret, kill: () => child.kill("SIGKILL") };
}

/** Makes a certificate for loopback that expires after `days`, and its key, as two files. */
export function selfSigned(days) {
  const folder = scratch();
  const [certificate, key] = [join(folder, "tls.crt"), join(folder, "tls.key")];
  execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", String(days),
    "-subj", "/CN=gateway", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate], { stdio: "ignore" });
  return { certificate, key };
}

/** A server of one page on an origin of its own: its URL. */
export async function origin(html = "<!doctype html><title>a page</title>") {
  const server = createServer((_, answer) => answer.writeHead(200, { "content-type": "text/html" }).end(html));
  await new Promise(resolve => server.listen(0, "127.0.0.1", resolve));
  endings.push(() => new Promise(resolve => { server.close(resolve); server.closeAllConnections(); }));
  return `http://127.0.0.1:${server.address().port}`;
}

let shared;
async function browser() {
  if (!shared) {
    shared = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
    endings.push(() => shared.close());
  }
  return shared;
}

/**
 * A page in a context of its own. `page.wrong` gathers what must not happen: errors in its console, and
 * requests to hosts that the test did not start; `page.quiet()` fails if there are any.
 */
export async function open(url, options = {}) {
  const context = await (await browser()).newContext({ viewport: { width: 1200, height: 900 }, ...options });
  const page = await context.newPage();
  endings.push(() => context.close());
  page.setDefaultTimeout(PATIENCE_MS);
  page.wrong = [];
  page.on("pageerror", error => page.wrong.push(`error: ${error.message}`));
  page.on("console", message => message.type() === "error" && page.wrong.push(`console: ${message.text()}`));
  page.on("request", request => {
    const { protocol, hostname } = new URL(request.url());
    if (!["data:", "blob:"].includes(protocol) && hostname !== "127.0.0.1") page.wrong.push(`asked ${request.url()}`);
  });
  page.quiet = () => assert.deepEqual(page.wrong, []);
  await page.goto(url);
  return page;
}

/** Fails where the page breaks a rule of WCAG 2.1 A or AA that a program can check. */
export async function accessible(page) {
  // Evaluated by the browser's debugger, which no policy of the page holds up.
  await page.evaluate(AXE);
  const found = await page.evaluate(() => axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }));
  const rules = found.violations.map(rule => `${rule.id}: ${rule.nodes.map(node => node.target.join(" ")).slice(0, 3).join(", ")}`);
  assert.deepEqual(rules, []);
}

/** Keeps a picture of the whole page where the runner was asked to. */
export async function shot(page, name) {
  if (process.env.SHOTS) await page.screenshot({ path: join(process.env.SHOTS, `${name}.png`), fullPage: true });
}
