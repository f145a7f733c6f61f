// A function's settings: limits, environment, secrets, and what is preloaded.

import { ask } from "/console/api.js";
import { $, button, element, item, onSubmit } from "/console/dom.js";
import { clearNetwork, drawNetwork } from "/console/network.js";

/** The fields of the form by their names in the API, and which of them are numbers. */
const FIELDS = ["memory", "cpus", "timeout", "concurrency", "keepWarm", "preload"];
const NUMBERS = ["cpus", "concurrency", "keepWarm"];

/** The function that the page is about, and the settings that the form has. */
let current = null;
let read = null;

const field = (name) => $(`setting-${name}`);

function text(name, value) {
  if (value === null || value === undefined) return "";
  if (name !== "preload") return String(value);
  return Array.isArray(value.mode) ? JSON.stringify(value.mode) : value.mode;
}

function draw(id, settings) {
  read = { id, settings };
  for (const name of FIELDS) field(name).value = text(name, settings[name]);
  field("preload").disabled = !settings.preload;
  drawPreload(settings.preload);
  drawNetwork(id, settings.network);
  $("environment").replaceChildren(...Object.entries(settings.environment).map(([name, value]) => (
    item(`${name}=${value}`, button(`Remove ${name}`, () => change({ environment: { [name]: null } }, "saved")))
  )));
  $("secrets").replaceChildren(...settings.secrets.map((name) => (
    item(name, button(`Remove ${name}`, () => change({ secrets: { [name]: null } }, "saved")))
  )));
}

function drawPreload(preload) {
  const facts = preload
    ? [`saves ${preload.savedMs} ms of each run`, `imported ahead: ${preload.modules.join(", ") || "nothing"}`]
    : ["Go needs no preloading."];
  const excluded = preload?.excluded ?? [];
  $("preloaded").replaceChildren(
    ...facts.map((fact) => element("li", fact)),
    ...excluded.map((one) => element("li", `left out: ${one.module}, which ${one.reason}`)),
  );
}

/** Reads a function's settings into the forms. */
export async function readSettings(id) {
  if (current !== id) {
    for (const form of ["settings", "variable", "secret"]) $(form).reset();
    for (const status of ["settings-status", "variable-status", "secret-status"]) $(status).textContent = "";
    for (const list of ["environment", "secrets", "preloaded"]) $(list).replaceChildren();
    clearNetwork(id);
  }
  current = id;
  read = null;
  const settings = await ask("GET", `/api/functions/${id}/settings`);
  if (current === id) draw(id, settings);
}

/** Changes the function that the forms are about. */
async function change(changes, said, status = "settings-status") {
  // A form that has nothing yet must change nothing.
  if (read === null) return;
  const { id } = read;
  const { settings } = await ask("PATCH", `/api/functions/${id}`, JSON.stringify(changes));
  if (current !== id) return;
  draw(id, settings);
  $(status).textContent = said;
}

function changed() {
  const changes = {};
  for (const name of FIELDS) {
    const value = field(name).value.trim();
    if (value === text(name, read.settings[name])) continue;
    if (!value) changes[name] = null;
    else if (NUMBERS.includes(name)) changes[name] = Number(value);
    else changes[name] = name === "preload" && value.startsWith("[") ? JSON.parse(value) : value;
  }
  return changes;
}

export function begin() {
  onSubmit("settings", "settings-save", async () => {
    if (read) await change(changed(), "saved");
  });
  onSubmit("variable", "variable-save", async () => {
    const [name, value] = [$("variable-name").value.trim(), $("variable-value").value];
    await change({ environment: { [name]: value } }, `${name} is set`, "variable-status");
    $("variable").reset();
  });
  onSubmit("secret", "secret-save", async () => {
    const [name, value] = [$("secret-name").value.trim(), $("secret-value").value];
    await change({ secrets: { [name]: value } }, `${name} is set, and not shown again`, "secret-status");
    $("secret").reset();
  });
}
