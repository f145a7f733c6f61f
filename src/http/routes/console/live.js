// What the platform does now, by one stream of events. Views hear of changes; no view asks again and again.

import { follow } from "/console/api.js";

/** The functions by their ids, and the last overview, where the token shows one. */
export const live = { functions: new Map(), overview: null, isThere: false, hasFunctions: false, problem: null };

const listeners = new Set();
const PAUSE = 2000;
/** The pause after a refusal, which stays one. */
const LONG_PAUSE = 30000;

/** Calls `hear` after each change, and once now. */
export function onChange(hear) {
  listeners.add(hear);
  hear();
}

function tell() {
  for (const hear of listeners) hear();
}

/** The functions, the last submitted first. */
export const functions = () => [...live.functions.values()].sort((one, other) => other.createdAt - one.createdAt);

function hear({ name, data }) {
  live.isThere = true;
  live.problem = null;
  if (name === "overview") live.overview = JSON.parse(data);
  if (name === "functions") {
    const { functions: changed, gone } = JSON.parse(data);
    for (const one of changed) live.functions.set(one.functionId, one);
    for (const id of gone) live.functions.delete(id);
    live.hasFunctions = true;
  }
  tell();
}

/** Resolves once a person may see the page. A hidden page holds no connection: browsers have six for all its tabs. */
function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", () => resolve(visible()), { once: true });
  });
}

/** Follows the stream for as long as the page is there. */
export async function begin() {
  for (;;) {
    await visible();
    const known = new Set(live.functions.keys());
    const hidden = new AbortController();
    const leave = () => { if (document.hidden) hidden.abort(); };
    document.addEventListener("visibilitychange", leave);
    try {
      let isFirst = true;
      await follow("/api/overview", (event) => {
        // A new stream begins with all functions: the others are gone.
        if (event.name === "functions" && isFirst) {
          isFirst = false;
          for (const one of JSON.parse(event.data).functions) known.delete(one.functionId);
          for (const id of known) live.functions.delete(id);
        }
        hear(event);
      }, hidden.signal);
    } catch (error) {
      // Without a status nobody has answered.
      live.problem = error.status ? error.message : null;
    }
    document.removeEventListener("visibilitychange", leave);
    if (hidden.signal.aborted) continue;
    live.isThere = false;
    tell();
    await new Promise((resolve) => setTimeout(resolve, live.problem ? LONG_PAUSE : PAUSE));
  }
}

/** Resolves once a function is known, or after a while. */
export function known(id) {
  return new Promise((resolve) => {
    let end = null;
    const done = () => {
      clearTimeout(end);
      listeners.delete(look);
      resolve();
    };
    const look = () => {
      if (live.functions.has(id)) done();
      // The time counts from the moment at which the page has the functions.
      else if (live.isThere && live.hasFunctions) end ??= setTimeout(done, 5000);
    };
    listeners.add(look);
    look();
  });
}
