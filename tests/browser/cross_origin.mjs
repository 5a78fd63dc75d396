// Pages of other origins: an allowed one asks with its key and reads answers, refusals and the exposed
// headers; another one reads nothing; neither can purge through the admin listener.

import assert from "node:assert/strict";
import { request } from "node:http";
import { before, test } from "node:test";

import { gateway, KEY, open, origin } from "./kit/stage.mjs";

let allowed, other, world;
before(async () => {
  allowed = await origin();
  other = await origin();
  world = await gateway(`[cors]\norigins = ["${allowed}"]\n`, "requests_per_minute = 600");
});

/** What a page at this origin gets: [status, headers that it may read, whether there is a body], or "refused". */
async function told(site) {
  const page = await open(site);
  return await page.evaluate(async ({ gateway, admin, key }) => {
    const names = ["cache-status", "etag", "age", "ratelimit", "ratelimit-policy", "retry-after", "x-request-id"];
    const withKey = { "X-API-Key": key }, json = { "Content-Type": "application/json" };
    const ask = async (url, options = {}) => {
      try {
        const answer = await fetch(url, options);
        const text = await answer.text();
        return [answer.status, names.filter(name => answer.headers.has(name)), text.length > 0];
      } catch { return "refused"; }
    };
    const search = { headers: { ...withKey, ...json }, body: '{"max_returned_items":5}' };
    return {
      get: await ask(`${gateway}/msp/customers`, { headers: withKey }),
      post: await ask(`${gateway}/v2/cases/msp/search`, { method: "POST", ...search }),
      query: await ask(`${gateway}/v2/cases/msp/search`, { method: "QUERY", ...search }),
      no_key: await ask(`${gateway}/msp/customers`),
      wrong_month: await ask(`${gateway}/v1/billing/299913`, { headers: withKey }),
      purge: await ask(`${admin}/admin/purge`, { method: "POST", headers: json, body: '{"all":true}' }),
      // What needs no preflight reaches the listener: it must be refused there.
      purge_simple: await ask(`${admin}/admin/purge`, { method: "POST", mode: "no-cors", headers: { "Content-Type": "text/plain" }, body: '{"all":true}' }),
    };
  }, { gateway: world.public, admin: world.admin, key: KEY });
}

test("a page of an allowed origin reads answers and refusals", async () => {
  const seen = await told(allowed);
  for (const name of ["get", "post", "query"]) {
    const [status, headers, body] = seen[name];
    assert.equal(status, 200, name);
    assert.ok(body, name);
    for (const header of ["cache-status", "etag", "ratelimit", "x-request-id"]) assert.ok(headers.includes(header), `${name}: ${header}`);
  }
  assert.equal(seen.no_key[0], 401);
  assert.equal(seen.wrong_month[0], 400);
  assert.equal(seen.purge, "refused");
});

test("a page of another origin reads nothing", async () => {
  const seen = await told(other);
  for (const name of ["get", "post", "query", "no_key", "wrong_month", "purge"]) assert.equal(seen[name], "refused", name);
});

test("nothing was purged", async () => {
  // The page cannot see what became of a request without CORS; the answer itself is what counts.
  for (const site of [allowed, other]) {
    const { status, code } = await new Promise((resolve, reject) => {
      const headers = { "Host": "localhost", "Origin": site, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Content-Type": "text/plain" };
      const asked = request(`${world.admin}/admin/purge`, { method: "POST", headers }, answer => {
        let text = "";
        answer.on("data", piece => { text += piece; }).on("end", () => resolve({ status: answer.statusCode, code: JSON.parse(text).code }));
      });
      asked.on("error", reject).end('{"all":true}');
    });
    assert.deepEqual([status, code], [403, "cross_site_refused"]);
  }
  const answer = await fetch(`${world.public}/msp/customers`, { headers: { "X-API-Key": KEY } });
  assert.match(answer.headers.get("cache-status"), /; hit/);
});
