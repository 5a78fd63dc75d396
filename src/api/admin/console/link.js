// Requests to the gateway: the operator's key, reads and commands, and the stream of samples.

const KEPT = "msp-gateway operator key";
let wantKey = () => {};
let badKey = false;

/** Sets the function that asks for a key. Its argument says whether the key that was sent was rejected. */
export function onKeyWanted(call) { wantKey = call; }
/** Keeps the key for this tab only. */
export function useKey(key) { sessionStorage.setItem(KEPT, key); badKey = false; }
export function forgetKey() { sessionStorage.removeItem(KEPT); }
export const hasKey = () => Boolean(sessionStorage.getItem(KEPT));

function headers(more) {
  const key = sessionStorage.getItem(KEPT);
  return key ? { "X-API-Key": key, ...more } : { ...more };
}

/** A refusal by the gateway: its `status` and its text. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? `The gateway answered ${status}.`);
    this.status = status;
    this.code = problem?.code;
  }
}

async function checked(answer) {
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => null);
  const refused = new Refused(answer.status, problem);
  if (answer.status === 401 || refused.code === "operator_required") {
    badKey = hasKey();
    forgetKey();
    wantKey(badKey);
  }
  throw refused;
}

/** An answer to GET, as JSON. */
export async function get(target) {
  return (await checked(await fetch(target, { headers: headers(), cache: "no-store" }))).json();
}

/** An answer to POST of JSON, as JSON. */
export async function post(target, body) {
  const options = { method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body) };
  return (await checked(await fetch(target, options))).json();
}

/**
 * Calls `sample` for each one that comes, and `state` with "live" or "lost". Comes back after each loss;
 * ends when a key is wanted.
 */
export async function watch(sample, state) {
  let pause = 500;
  for (;;) {
    try {
      const answer = await checked(await fetch("../admin/live", { headers: headers(), cache: "no-store" }));
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const events = text.split("\n\n");
        text = events.pop();
        for (const event of events) {
          const data = event.split("\n").find(line => line.startsWith("data: "));
          if (data) { pause = 500; state("live"); sample(JSON.parse(data.slice(6))); }
        }
      }
    } catch (why) {
      if (why instanceof Refused && (why.status === 401 || why.status === 403)) return;
    }
    state("lost");
    await new Promise(resolve => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, 4000);
  }
}
