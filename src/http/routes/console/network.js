// A function's network in the console: shown, changed, and what an invocation did with the network.

import { ask } from "/console-api.js";

const $ = (id) => document.getElementById(id);

/** The function that the page is about, and the function whose rules the form has. */
let current = null;
let read = null;

function draw(network) {
  $("network-rules").value = (network?.allow ?? []).join("\n");
}

/** Reads a function's network into the form. */
export async function readNetwork(id) {
  current = id;
  read = null;
  draw(null);
  $("network-status").textContent = "";
  const settings = await ask("GET", `/api/functions/${id}/settings`);
  if (current !== id) return;
  read = id;
  draw(settings.network);
}

/** Shows what the connections of an invocation did, and why there are no others. */
export function drawDestinations(destinations) {
  $("destinations").replaceChildren(...destinations.map((one) => {
    const item = document.createElement("li");
    const counts = [`${one.connections} connections`, `${one.sentBytes} B sent`, `${one.receivedBytes} B received`];
    if (one.refused) counts.push(`${one.refused} refused: ${one.reason ?? "no reason"}`);
    item.textContent = [one.to, ...counts].join(" · ");
    return item;
  }));
}

/** Gives the function the network of the form. */
export async function saveNetwork() {
  // A form that has no rules yet must not take the function's network away.
  if (read === null) return;
  const id = read;
  const allow = $("network-rules").value.split(/\s+/).filter(Boolean);
  const change = JSON.stringify({ network: allow.length ? { allow } : null });
  const { settings } = await ask("PATCH", `/api/functions/${id}`, change);
  if (current !== id) return;
  draw(settings.network);
  let now = "";
  if (!settings.network) now = ": the function reaches nothing";
  else if (!allow.length) now = ": what function.toml says counts again";
  $("network-status").textContent = `saved${now}`;
}
