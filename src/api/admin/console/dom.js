// Makes elements, and formats numbers for people.

/** An element. `props` are properties; `class`, `for`, and names with a dash are attributes. */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "for") element.htmlFor = value;
    else if (name.includes("-") || name === "role" || name === "colspan" || name === "scope") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

/** The namespace of SVG, taken from the mark in the page. */
const SVG = document.querySelector("svg.mark").namespaceURI;

/** An SVG element with these attributes. */
export function s(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function pill(words, kind = "") {
  return h("span", { class: `pill ${kind}` }, words);
}

/** A bar that is `part` full. Screen readers read `label`. */
export function bar(part, label, kind = "") {
  const inside = h("i", { class: kind });
  inside.style.width = `${Math.min(100, Math.max(0, part * 100))}%`;
  return h("div", { class: "bar", role: "img", "aria-label": label }, inside);
}

/** A table. `columns` are [title, cell of a row, "num" or ""]. */
export function table(caption, columns, rows, more = {}) {
  const head = columns.map(([title, , kind]) => h("th", { class: kind, scope: "col" }, title));
  const body = rows.map(row => h("tr", {}, columns.map(([, cell, kind]) => h("td", { class: kind }, cell(row)))));
  return h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": caption },
    h("table", more, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

const NUMBERS = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const count = number => NUMBERS.format(number);

/** A rate or a small number, with two or three significant digits. */
export function rate(number) {
  if (number >= 100 || number === 0) return count(number);
  return number.toFixed(number >= 10 ? 1 : 2).replace(/\.?0+$/, "");
}

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  while (number >= 1024 && at < units.length - 1) { number /= 1024; at += 1; }
  return `${at === 0 || number >= 100 ? Math.round(number) : number.toFixed(1)} ${units[at]}`;
}

export function ms(number) {
  if (number === null || number === undefined) return "–";
  if (number >= 10_000) return `${(number / 1000).toFixed(1)} s`;
  if (number >= 1000) return `${(number / 1000).toFixed(2)} s`;
  if (number >= 100) return `${Math.round(number)} ms`;
  return `${Number(number.toPrecision(2))} ms`;
}

/** Formats seconds in at most two units. */
export function span(seconds) {
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  let left = Math.max(0, Math.round(seconds));
  const said = [];
  for (const [unit, size] of parts) {
    const whole = Math.floor(left / size);
    if (whole > 0 && said.length < 2) { said.push(`${whole} ${unit}`); left -= whole * size; }
    else if (said.length) break;
  }
  return said.join(" ") || "0 s";
}

export const percent = part => part === null || part === undefined ? "–" : `${(part * 100).toFixed(part > 0.9995 || part === 0 ? 0 : 1)} %`;
export const clock = time => new Date(time).toLocaleTimeString("en-GB");
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
