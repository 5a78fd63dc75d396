// Redraws at intervals, but not while a person uses what is drawn.

import { h } from "./dom.js";

/** Redraws every `pause` and shows errors in `place`. Waits while something in `place` has the focus. */
export function every(pause, draw, place) {
  let over = false, timer;
  async function again() {
    const used = place.contains(document.activeElement) && place !== document.activeElement;
    if (!document.hidden && !used) {
      try {
        await draw();
      } catch (why) {
        if (!over) place.replaceChildren(h("p", { class: "note bad", role: "alert" }, why.message));
      }
    }
    if (!over) timer = setTimeout(again, pause);
  }
  again();
  return { end() { over = true; clearTimeout(timer); }, draw };
}
