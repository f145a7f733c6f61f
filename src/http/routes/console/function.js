// A function's page: its run, and tabs for its history, code, settings and triggers.

import { Problem, ask } from "/console/api.js";
import { $, attempt, confirm, onSubmit, show, time } from "/console/dom.js";
import { mark } from "/console/functions.js";
import { known, live, onChange } from "/console/live.js";
import { readCode } from "/console/code.js";
import { readRefused } from "/console/network.js";
import { Runs, place, showNone, showRun, watch } from "/console/runs.js";
import { readSettings } from "/console/settings.js";
import { readTriggers } from "/console/triggers.js";

const TABS = ["history", "code", "settings", "triggers"];
let current = null;
let runs = null;
/** When the function was last executed, as the history has shown it. */
let lastExecuted = null;

function drawHead() {
  const one = live.functions.get(current);
  if (!one) return;
  if (one.lastExecuted !== lastExecuted) {
    lastExecuted = one.lastExecuted;
    runs.refresh();
  }
  $("detail-title").textContent = one.name;
  const facts = [one.functionId, one.language, `version ${one.version}`, `deployed ${time(one.createdAt)}`];
  $("detail-facts").textContent = facts.join(" · ");
}

function showTab(tab) {
  for (const name of TABS) {
    $(`tab-${name}`).setAttribute("href", `#/functions/${current}/${name}`);
    if (name === tab) $(`tab-${name}`).setAttribute("aria-current", "page");
    else $(`tab-${name}`).removeAttribute("aria-current");
    $(`part-${name}`).hidden = name !== tab;
  }
}

async function readTab(id, tab) {
  if (tab === "code") await readCode(id);
  if (tab === "settings") {
    await readSettings(id);
    // What is allowed is known by now.
    await readRefused(id);
  }
  if (tab === "triggers") await readTriggers(live.functions.get(id));
}

/** Shows a function. */
export async function showFunction(id, tab = "history") {
  const isNew = current !== id;
  current = id;
  mark(id);
  place($("run-result"), () => runs.read());
  if (isNew) {
    // The page must not show data of another function as this function's.
    showNone();
    for (const name of ["settings", "triggers"]) $(`part-${name}`).setAttribute("aria-busy", "true");
    $("input").value = "{}";
    $("update-status").textContent = "";
  }
  await known(id);
  if (current !== id) return;
  $("detail").hidden = !live.functions.has(id);
  if (!live.functions.has(id)) throw new Problem(404, { detail: `there is no function ${id}` });
  drawHead();
  showTab(TABS.includes(tab) ? tab : "history");
  if (isNew) $("detail-title").focus();
  const path = `/api/functions/${id}/invocations`;
  await Promise.all([isNew || runs.path !== path ? runs.of(path) : runs.read(), readTab(id, tab)]);
}

/** Leaves the function's page. */
export function leaveFunction() {
  current = null;
  mark(null);
}

async function run() {
  let input;
  try {
    input = JSON.parse($("input").value || "{}");
  } catch (error) {
    throw new Problem(0, { detail: `the input is not JSON: ${error.message}` });
  }
  const id = current;
  const body = JSON.stringify(input);
  const accepted = await ask("POST", `/api/functions/${id}/invoke`, body, { prefer: "respond-async" });
  // The button does not wait for the end: a person may run another function meanwhile.
  if (current === id) {
    watch(accepted.invocationId).catch(show);
    await runs.read();
  }
}

async function remove() {
  const one = live.functions.get(current);
  const text = `Delete ${one.name} with its history? This can't be undone.`;
  if (!await confirm(text, "Delete the function", "Keep the function")) return;
  await ask("DELETE", `/api/functions/${one.functionId}`);
  live.functions.delete(one.functionId);
  $("upload-status").textContent = "the function is deleted";
  if (current === one.functionId) location.hash = "#/functions";
}

export function begin() {
  runs = new Runs("", (one) => showRun(one).catch(show), false);
  onSubmit("run", "execute", run);
  $("delete").addEventListener("click", () => attempt($("delete"), remove));
  onChange(drawHead);
}
