// A function's network in the console: shown, changed, and what an invocation did with the network.

import { ask } from "/console/api.js";
import { $, button, element, item, onSubmit } from "/console/dom.js";

/** The function that the page is about, and the function whose rules the form has. */
let current = null;
let read = null;

const allowed = () => $("network-rules").value.split(/\s+/).filter(Boolean);

/** Shows a function's network in the form. */
export function drawNetwork(id, network) {
  current = id;
  read = id;
  $("network-rules").value = (network?.allow ?? []).join("\n");
}

/** Empties the form until the function's network is read. */
export function clearNetwork(id) {
  current = id;
  read = null;
  $("network-rules").value = "";
  $("network-status").textContent = "";
  $("refused").replaceChildren();
}

/** Shows what the last invocations were refused, with a button that allows it. */
export async function readRefused(id) {
  const { invocations } = await ask("GET", `/api/functions/${id}/invocations?limit=100`);
  if (current !== id) return;
  const refused = new Map();
  for (const one of invocations.flatMap((invocation) => invocation.network ?? [])) {
    if (one.refused && !refused.has(one.to)) refused.set(one.to, one.reason ?? "no reason");
  }
  $("refused").replaceChildren(...[...refused].filter(([to]) => !allowed().includes(to)).map(([to, reason]) => (
    item(`refused lately: ${to} · ${reason}`, button(`Allow ${to}`, async () => {
      $("network-rules").value = [...allowed(), to].join("\n");
      await saveNetwork();
      await readRefused(id);
    }))
  )));
}

/** Shows what the connections of an invocation did, and why there are no others. */
export function drawDestinations(destinations) {
  $("destinations").replaceChildren(...destinations.map((one) => {
    const counts = [`${one.connections} connections`, `${one.sentBytes} B sent`, `${one.receivedBytes} B received`];
    if (one.refused) counts.push(`${one.refused} refused: ${one.reason ?? "no reason"}`);
    return element("li", [one.to, ...counts].join(" · "));
  }));
}

/** Gives the function the network of the form. */
async function saveNetwork() {
  // A form that has no rules yet must not take the function's network away.
  if (read === null) return;
  const id = read;
  const allow = allowed();
  const change = JSON.stringify({ network: allow.length ? { allow } : null });
  const { settings } = await ask("PATCH", `/api/functions/${id}`, change);
  if (current !== id) return;
  drawNetwork(id, settings.network);
  let now = "";
  if (!settings.network) now = ": the function reaches nothing";
  else if (!allow.length) now = ": what function.toml says counts again";
  $("network-status").textContent = `saved${now}`;
}

export function begin() {
  onSubmit("network", "network-save", saveNetwork);
}
