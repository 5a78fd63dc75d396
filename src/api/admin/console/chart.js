// Charts as SVG, with a table behind each.

import { clock, h, s, table } from "./dom.js";

const WIDTH = 600;
const HEIGHT = 160;
/** Minimum time that a chart spans. A few seconds of samples would show nothing. */
const SPAN_MS = 120_000;

/** A round number not below `most`. */
function ceiling(most) {
  if (!(most > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 2.5, 5, 10].map(step => step * power).find(step => step >= most);
}

/**
 * A chart that can be drawn again. `series` are {name, kind, of, faint}: `of` a sample gives a number, or
 * null for a gap. `say` writes a number; `options.stacked` puts areas on each other; `options.log` has a
 * logarithmic scale, and `options.most` fixes the top.
 */
export function chart(title, series, say, options = {}) {
  const svg = s("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const axis = [0, 1, 2].map(at => {
    const label = h("span", { class: "axis", "aria-hidden": "true" });
    label.style.top = `${at * 50}%`;
    return label;
  });
  const from = h("span", {}), to = h("span", {});
  const numbers = h("div", {});
  const details = h("details", {}, h("summary", {}, "Table"), numbers);
  const keys = series.map(one => h("span", { class: `key k-${one.kind}${one.faint ? " faint" : ""}` }, one.name));
  const element = h("figure", { class: "panel" },
    h("figcaption", {}, h("h2", {}, title), keys),
    h("div", { class: "plot" }, svg, axis),
    h("div", { class: "times", "aria-hidden": "true" }, from, to),
    details);
  let last = [];

  function tell() {
    if (!details.open) return;
    const columns = [["Time", one => clock(one.time)], ...series.map(one => [one.name, sample => said(one.of(sample)), "num"])];
    // The scroll position is kept: a table that jumps back each second cannot be read.
    const top = numbers.firstChild?.scrollTop ?? 0;
    numbers.replaceChildren(table(title, columns, last.slice(-60).reverse()));
    numbers.firstChild.scrollTop = top;
  }
  const said = number => number === null || number === undefined ? "–" : say(number);
  details.addEventListener("toggle", tell);

  function draw(samples) {
    last = samples;
    const ended = samples.length ? Date.parse(samples.at(-1).time) : 0;
    const begun = samples.length ? Math.min(Date.parse(samples[0].time), ended - SPAN_MS) : 0;
    const whole = Math.max(1, ended - begun);
    const x = sample => (Date.parse(sample.time) - begun) / whole * WIDTH;
    const values = samples.map(sample => series.map(one => one.of(sample)));
    let most = 0, least = Infinity;
    for (const row of values) {
      if (options.stacked) most = Math.max(most, row.reduce((sum, value) => sum + (value ?? 0), 0));
      else for (const value of row) if (value !== null) { most = Math.max(most, value); if (value > 0) least = Math.min(least, value); }
    }
    let y, ticks;
    if (options.log) {
      const low = Math.floor(Math.log10(least === Infinity ? 0.1 : least));
      const high = Math.max(low + 1, Math.ceil(Math.log10(most || 1)));
      y = value => HEIGHT - Math.max(0, (Math.log10(Math.max(value, 1e-9)) - low) / (high - low)) * HEIGHT;
      ticks = [10 ** high, 10 ** ((high + low) / 2), 10 ** low];
    } else {
      const top = options.most ?? ceiling(most);
      y = value => HEIGHT - value / top * HEIGHT;
      ticks = [top, top / 2, 0];
    }
    const shapes = [0, 0.5, 1].map(at => s("line", { class: "grid", x1: 0, x2: WIDTH, y1: at * HEIGHT, y2: at * HEIGHT }));
    if (options.stacked) {
      const floor = samples.map(() => 0);
      series.forEach((one, column) => {
        if (!samples.length) return;
        const lower = samples.map((sample, at) => `${x(sample).toFixed(1)},${y(floor[at]).toFixed(1)}`);
        samples.forEach((_, at) => { floor[at] += values[at][column] ?? 0; });
        const upper = samples.map((sample, at) => `${x(sample).toFixed(1)},${y(floor[at]).toFixed(1)}`);
        shapes.push(s("path", { class: `area k-${one.kind}`, d: `M${upper.join("L")}L${lower.reverse().join("L")}Z` }));
      });
    } else {
      series.forEach((one, column) => {
        let path = "", pen = "M";
        samples.forEach((sample, at) => {
          const value = values[at][column];
          if (value === null || value === undefined) { pen = "M"; return; }
          path += `${pen}${x(sample).toFixed(1)},${y(value).toFixed(1)}`;
          // A single point is drawn as a short line, so that it can be seen.
          if (pen === "M") path += "h.5";
          pen = "L";
        });
        if (path) shapes.push(s("path", { class: `series k-${one.kind}${one.faint ? " faint" : ""}`, d: path }));
      });
    }
    svg.replaceChildren(...shapes);
    axis.forEach((label, at) => { label.textContent = say(ticks[at]); });
    from.textContent = samples.length ? clock(begun) : "";
    to.textContent = samples.length ? clock(samples.at(-1).time) : "no samples yet";
    const now = samples.at(-1);
    svg.setAttribute("aria-label", now ? `${title}: ${series.map(one => `${one.name} ${said(one.of(now))}`).join(", ")}` : title);
    tell();
  }
  return { element, draw };
}
