
"use strict";
const METHODS = ["get", "post", "put", "patch", "delete"];
const SHOWN_MAX = 65536; // Of an answer's text; an export may have no end in sight.
const DEPTH_MAX = 6; // Of a schema shown: nobody reads further, and schemas may name themselves.
let api;

/** An element with attributes and children; text is always text, never markup. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in element && key !== "list") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.flat().filter(child => child !== undefined && child !== null));
  return element;
}

/** A line of a description, with `code` as code. */
function inline(text = "") {
  return text.split("`").map((piece, at) => at % 2 ? make("code", {}, piece) : piece);
}

/** The paragraphs of a description. */
function prose(text = "") {
  return text.split(/\n\n+/).filter(Boolean).map(part => make("p", {}, inline(part)));
}

function resolve(thing) {
  for (let steps = 0; thing && thing.$ref && steps < 8; steps++) {
    thing = thing.$ref.slice(2).split("/").reduce((at, key) => at && at[key.replace(/~1/g, "/").replace(/~0/g, "~")], api);
  }
  return thing || {};
}

/** A schema's type in a few words. */
function typeOf(schema) {
  const seen = resolve(schema);
  if (seen.const !== undefined) return JSON.stringify(seen.const);
  const either = seen.oneOf || seen.anyOf;
  if (either) return either.map(typeOf).join(" or ");
  const types = [].concat(seen.type || (seen.properties ? "object" : seen.items ? "array" : "any"));
  const named = types.map(type => type === "array" ? `array of ${typeOf(seen.items || {})}` : type);
  const bounds = [];
  if (seen.enum && seen.enum.length <= 12) bounds.push(seen.enum.map(word => JSON.stringify(word)).join(" "));
  if (seen.format) bounds.push(seen.format);
  if (seen.minimum !== undefined || seen.maximum !== undefined) bounds.push(`${seen.minimum ?? ""}..${seen.maximum ?? ""}`);
  if (seen.default !== undefined) bounds.push(`default ${JSON.stringify(seen.default)}`);
  return named.join(" or ") + (bounds.length ? ` (${bounds.join(", ")})` : "");
}

/** A schema's members as a list. */
function shape(schema, depth = 0) {
  const seen = resolve(schema);
  if (depth > DEPTH_MAX) return null;
  for (const part of seen.oneOf || seen.anyOf || []) {
    const inner = shape(part, depth + 1);
    if (inner) return inner;
  }
  if (seen.items) return shape(seen.items, depth + 1);
  const all = [seen, ...(seen.allOf || []).map(resolve)];
  const members = all.flatMap(part => Object.entries(part.properties || {}));
  if (typeof seen.additionalProperties === "object" && shape(seen.additionalProperties, depth + 1)) {
    members.push(["…", seen.additionalProperties]);
  }
  if (!members.length) return null;
  const required = new Set(all.flatMap(part => part.required || []));
  return make("ul", {className: "shape"}, members.map(([name, member]) => make("li", {},
    make("code", {}, name), " ", make("span", {className: "type"}, typeOf(member) + (required.has(name) ? "" : ", may be absent")),
    " ", inline(member.description || resolve(member).description), shape(member, depth + 1))));
}

function details(title, ...inside) {
  return make("details", {}, make("summary", {}, title), ...inside);
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

/** One form field for a parameter: its element, and what it adds to the request. */
function field(parameter, id) {
  const schema = resolve(parameter.schema);
  const input = schema.enum
    ? make("select", {id}, make("option", {value: ""}, "(not sent)"), schema.enum.map(word => make("option", {value: word}, word)))
    : make("input", {id, placeholder: typeOf(schema), spellcheck: false});
  const example = parameter.example ?? (parameter.required ? schema.examples?.[0] : undefined);
  if (example !== undefined && parameter.required) input.value = String(example);
  return {
    parameter, input,
    parts: [make("label", {htmlFor: id}, parameter.name + (parameter.required ? " *" : "")), input,
      make("span", {className: "hint"}, inline(parameter.description))],
  };
}

/** The beginning of an answer's text, and whether there is more of it. */
async function beginning(answer) {
  if (!answer.body) return ["", false];
  const reader = answer.body.getReader(), decoder = new TextDecoder();
  let text = "";
  while (text.length < SHOWN_MAX) {
    const {done, value} = await reader.read();
    if (done) return [text + decoder.decode(), false];
    text += decoder.decode(value, {stream: true});
  }
  await reader.cancel();
  return [text.slice(0, SHOWN_MAX), true];
}

function quoted(text) {
  return `'${text.replace(/'/g, "'\\''")}'`;
}

/** The form that sends a request, and the place for what comes back. */
function trial(path, method, operation) {
  const parameters = (operation.parameters || []).map(resolve);
  const fields = parameters.map((parameter, at) => field(parameter, `${operation.operationId}-${at}`));
  const content = Object.entries(resolve(operation.requestBody).content || {})[0];
  const examples = Object.entries(content?.[1].examples || {});
  const id = `${operation.operationId}-body`;
  const body = content && make("textarea", {id, spellcheck: false});
  const choose = examples.length > 1 && make("select", {ariaLabel: "Example of a body"},
    examples.map(([name, example], at) => make("option", {value: at}, resolve(example).summary || name)));
  const fill = () => { body.value = JSON.stringify(resolve(examples[choose ? choose.value || 0 : 0][1]).value, null, 2); };
  if (body && examples.length) fill();
  if (choose) choose.addEventListener("change", fill);
  const as = operation["x-query"] && make("select", {ariaLabel: "Method"}, ["POST", "QUERY"].map(word => make("option", {}, word)));
  const send = make("button", {type: "submit"}, "Send");
  const result = make("div", {ariaLive: "polite", className: "result"});

  async function ask(event) {
    event.preventDefault();
    let target = path;
    const query = [];
    for (const {parameter, input} of fields) {
      const value = input.value.trim();
      if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(value));
      else if (value) query.push(`${parameter.name}=${encodeURIComponent(value).replace(/%2C/g, ",")}`);
    }
    if (query.length) target += `?${query.join("&")}`;
    // Beside this page: a proxy in front may have put the gateway below a path of its own.
    const url = new URL(`.${target}`, document.baseURI);
    const verb = as ? as.value : method.toUpperCase();
    const key = document.getElementById("key").value.trim();
    const headers = {};
    if (key) headers["X-API-Key"] = key;
    if (body && body.value.trim()) headers["Content-Type"] = "application/json";
    const curl = ["curl -si", verb === "GET" ? "" : `-X ${verb}`, key ? '-H "X-API-Key: $KEY"' : "",
      headers["Content-Type"] ? `-H 'Content-Type: application/json' --data ${quoted(body.value)}` : "", quoted(url.href)];
    send.disabled = true;
    const begun = performance.now();
    try {
      const answer = await fetch(url, {method: verb, headers, body: body && body.value.trim() ? body.value : undefined, cache: "no-store"});
      const [text, cut] = await beginning(answer);
      const took = Math.round(performance.now() - begun);
      result.replaceChildren(
        make("h4", {}, "Answer"),
        make("p", {className: answer.ok ? "good" : "bad"}, `${answer.status} ${answer.statusText} in ${took} ms`),
        make("table", {}, make("tbody", {}, [...answer.headers].map(([name, value]) => make("tr", {}, make("th", {scope: "row"}, name), make("td", {}, value))))),
        make("pre", {tabIndex: 0}, pretty(text) || "(no body)"),
        cut ? make("p", {className: "hint"}, "The answer goes on; its beginning is shown.") : "",
        make("h4", {}, "The same with curl"), make("pre", {tabIndex: 0}, curl.filter(Boolean).join(" ")));
    } catch (error) {
      result.replaceChildren(make("p", {className: "bad"}, `No answer: ${error.message}`));
    } finally {
      send.disabled = false;
    }
  }
  const needsKey = !(operation.security && operation.security.length === 0);
  return make("form", {onsubmit: ask},
    make("div", {className: "fields"}, fields.flatMap(one => one.parts)),
    body ? [make("h4", {}, make("label", {htmlFor: id}, "Body")), choose || "", body] : "",
    make("div", {className: "row"}, as || "", send, make("span", {className: "hint"}, needsKey ? "Sends the caller key typed above." : "Needs no key.")),
    result);
}

/** What a status means on this route: its problem codes, each with the words that the shared response has for it. */
function meaning(operation, status, response) {
  const codes = operation["x-problem-codes"]?.[status];
  if (!codes) return prose(response.description);
  const words = new Map((response.description || "").split("\n").map(line => line.match(/^\* `(\w+)`: (.*)$/)?.slice(1)).filter(Boolean));
  return codes.map(code => make("div", {}, make("code", {}, code), " ", inline(words.get(code))));
}

function answers(operation) {
  const rows = Object.entries(operation.responses).map(([status, named]) => [status, resolve(named)]);
  const good = rows.filter(([status]) => status.startsWith("2")).flatMap(([, response]) =>
    Object.entries(response.content || {}).map(([media, of]) => [
      make("p", {}, make("code", {}, media), " ", inline(response.description)), shape(of.schema || {}),
      Object.values(of.examples || {}).slice(0, 1).map(example => {
        const value = resolve(example).value;
        return make("pre", {tabIndex: 0}, typeof value === "string" ? value : JSON.stringify(value, null, 2));
      })]));
  const headers = rows.filter(([status]) => status === "200").flatMap(([, response]) => Object.entries(response.headers || {}));
  return [
    details("A good answer", ...good.flat()),
    headers.length ? details("Its headers", make("table", {}, make("tbody", {}, headers.map(([name, header]) =>
      make("tr", {}, make("th", {scope: "row"}, name), make("td", {}, inline(resolve(header).description))))))) : "",
    details("Every status", make("table", {}, make("tbody", {}, rows.map(([status, response]) =>
      make("tr", {}, make("th", {scope: "row"}, status), make("td", {}, meaning(operation, status, response))))))),
  ];
}

function show(document_) {
  api = document_;
  document.getElementById("title").textContent = `${api.info.title} ${api.info.version}`;
  const main = document.getElementById("main"), nav = document.getElementById("nav");
  main.replaceChildren(...prose(api.info.description), make("p", {}, "Everything here is made from ", make("a", {href: "openapi.json"}, "openapi.json"), "."));
  const operations = Object.entries(api.paths).flatMap(([path, item]) =>
    METHODS.filter(method => item[method]).map(method => ({path, method, operation: item[method]})));
  const tags = api.tags || [...new Set(operations.map(one => one.operation.tags?.[0]))].map(name => ({name}));
  for (const tag of tags) {
    const of = operations.filter(one => one.operation.tags?.[0] === tag.name);
    if (!of.length) continue;
    nav.append(make("strong", {}, tag.name));
    main.append(make("h2", {}, tag.name), ...prose(tag.description));
    for (const {path, method, operation} of of) {
      nav.append(make("a", {href: `#${operation.operationId}`}, operation.summary));
      main.append(make("article", {id: operation.operationId, ariaLabel: operation.summary},
        make("div", {className: "head"}, make("span", {className: "verb"}, method.toUpperCase()), make("h3", {}, path), make("span", {}, operation.summary)),
        prose(operation.description), trial(path, method, operation), answers(operation)));
    }
  }
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

document.getElementById("access").addEventListener("submit", event => event.preventDefault());
fetch("openapi.json").then(answer => answer.json()).then(show).catch(error => {
  document.getElementById("state").textContent = `openapi.json cannot be read: ${error.message}`;
});
