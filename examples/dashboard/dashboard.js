// A small dashboard in front of msp-gateway, made to be copied: no framework, no build step.
//
// `config.json` beside this file says where the gateway is and which caller key to send:
//     {"gateway": "https://gateway.example", "key": "mspgw_…"}
// The gateway must know this page's origin (`cors.origins`), and everyone who opens the page has the key:
// give it a caller of its own, with `customers` and `requests_per_minute`.

const { gateway, key } = await (await fetch("config.json")).json();
const PAGE_ROWS = 25;
const at = id => document.getElementById(id);

/** Asks the gateway. A refusal is thrown with its own words. */
async function ask(path, options = {}) {
  const answer = await fetch(gateway + path, { ...options, headers: { "X-API-Key": key, ...options.headers } });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  const later = answer.headers.get("Retry-After");
  throw new Error(`${problem.detail || `The gateway answered ${answer.status}.`}${later ? ` Try again in ${later} s.` : ""}`);
}

/** How fresh an answer is, in words: `Cache-Status` says how it came about, `Age` how old it is. */
function freshness(answer) {
  const status = answer.headers.get("Cache-Status") || "";
  const age = Number(answer.headers.get("Age") || 0);
  const old = age < 120 ? `${age} s old` : `${Math.round(age / 60)} min old`;
  if (/detail=stale-on-error/.test(status)) return `${old}; the vendor does not answer`;
  if (/detail=stale/.test(status)) return `${old}, being refreshed`;
  return /; hit/.test(status) ? `from memory, ${old}` : `fetched now, ${old}`;
}

function cell(text, name = "td", className = "") {
  const element = document.createElement(name);
  element.textContent = text ?? "";
  element.className = className;
  return element;
}

function fill(body, rows) {
  body.replaceChildren(...rows.map(cells => {
    const row = document.createElement("tr");
    row.append(...cells);
    return row;
  }));
}

/** Runs `work` while the buttons rest; says what went wrong, if anything did. */
async function doing(work) {
  at("trouble").hidden = true;
  document.body.ariaBusy = "true";
  try {
    await work();
  } catch (error) {
    at("trouble").textContent = error.message;
    at("trouble").hidden = false;
  } finally {
    document.body.ariaBusy = "false";
  }
}

const period = () => ({ start: at("start").value, end: at("end").value });

async function listCustomers() {
  const answer = await ask("/msp/customers?fields=id,name");
  const body = await answer.json();
  // wiv's list comes bare or in `data`.
  for (const { customer_id, customer_name } of body.data ?? body) {
    at("customer").append(new Option(customer_name, customer_id));
  }
}

async function showTypes() {
  const answer = await ask(`/v1/overview?${new URLSearchParams(period())}`);
  const { customers, parts } = await answer.json();
  const chosen = at("customer").value;
  const types = new Map();
  for (const { customer_id, cases } of customers) {
    if (chosen && customer_id !== chosen) continue;
    for (const [type, count] of Object.entries(cases?.by_type ?? {})) types.set(type, (types.get(type) ?? 0) + count);
  }
  const most = Math.max(1, ...types.values());
  fill(at("types").tBodies[0], [...types].sort((a, b) => b[1] - a[1]).map(([type, count]) => {
    const bar = Object.assign(document.createElement("progress"), { max: most, value: count, ariaLabel: type });
    const drawn = cell("");
    drawn.append(bar);
    return [cell(type || "(none)", "th"), drawn, cell(count, "td", "number")];
  }));
  const missing = Object.entries(parts).filter(([, part]) => part.status === "failed").map(([name]) => name);
  at("types-age").textContent = freshness(answer) + (missing.length ? `; without ${missing.join(", ")}` : "");
}

// The tokens of the pages seen so far. A page token may be used again, so going back is asking again.
let pages = [null];

async function showPage() {
  const customer = at("customer").value;
  const token = pages.at(-1);
  const search = token ? { start_page_key: { scroll_id: token } } : { max_returned_items: PAGE_ROWS, date_range: period() };
  const answer = await ask(`/v2/cases/msp/search${customer ? `?customer_id=${encodeURIComponent(customer)}` : ""}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(search),
  });
  // Amounts may have more digits than a JavaScript number holds: browsers tell how they were written.
  const { data, next_page_key } = JSON.parse(await answer.text(), (_, value, as) => typeof value === "number" ? as?.source ?? value : value);
  fill(at("cases").tBodies[0], data.map(row =>
    [cell(row.case_id), cell(row.customer_name), cell(row.case_type), cell(row.status), cell(row.cost_impact, "td", "number")]));
  at("where").textContent = data.length ? `Page ${pages.length}${next_page_key ? "" : ", the last"}` : "No cases";
  at("cases-age").textContent = freshness(answer);
  at("back").disabled = pages.length === 1;
  at("next").disabled = !next_page_key;
  at("next").onclick = () => doing(() => { pages.push(next_page_key.scroll_id); return showPage(); });
}

async function download() {
  const query = new URLSearchParams({ ...period(), format: "csv" });
  if (at("customer").value) query.set("customer_id", at("customer").value);
  const answer = await ask(`/v1/cases/export?${query}`);
  // A stream that is cut short fails here: what was saved is always the whole.
  const file = URL.createObjectURL(await answer.blob());
  Object.assign(document.createElement("a"), { href: file, download: "cases.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(file), 60_000);
}

function show() {
  pages = [null];
  // Rows of another question must not stay if this one fails.
  for (const id of ["cases", "types"]) fill(at(id).tBodies[0], []);
  for (const id of ["where", "cases-age", "types-age"]) at(id).textContent = "";
  at("back").disabled = at("next").disabled = true;
  return doing(() => Promise.all([showPage(), showTypes()]));
}

const day = ago => new Date(Date.now() - ago * 86_400_000).toISOString().slice(0, 10);
at("start").value = day(30);
at("end").value = day(0);
at("show").onclick = at("customer").onchange = show;
at("back").onclick = () => doing(() => { pages.pop(); return showPage(); });
at("export").onclick = () => doing(download);
await doing(listCustomers);
await show();
