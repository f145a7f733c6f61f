// A function's settings: limits, environment, secrets, and what is preloaded.

import { Problem, ask } from "/console/api.js";
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

/** Shows the settings in all forms. */
function draw(id, settings) {
  drawLists(id, settings);
  for (const name of FIELDS) field(name).value = text(name, settings[name]);
  field("preload").disabled = !settings.preload;
  drawNetwork(id, settings.network);
}

/** Shows what has no form of its own. What a person has typed into the forms stays. */
function drawLists(id, settings) {
  read = { id, settings };
  drawPreload(settings.preload);
  const remover = (name, kind, status) => button(`Remove ${name}`, () => (
    change({ [kind]: { [name]: null } }, `${name} is removed`, status)
  ));
  $("environment").replaceChildren(...Object.entries(settings.environment).map(([name, value]) => (
    item(`${name}=${value}`, remover(name, "environment", "variable-status"))
  )));
  $("secrets").replaceChildren(...settings.secrets.map((name) => (
    item(name, remover(name, "secrets", "secret-status"))
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
  // Until the settings are read, what a person types would be drawn over.
  $("part-settings").setAttribute("aria-busy", "true");
  try {
    const settings = await ask("GET", `/api/functions/${id}/settings`);
    if (current === id) draw(id, settings);
  } finally {
    if (current === id) $("part-settings").setAttribute("aria-busy", "false");
  }
}

/** The settings that the forms have. A form that has none yet must change nothing. */
function known() {
  if (read === null) throw new Problem(0, { detail: "the settings are not read yet; try again" });
  return read;
}

/** Changes the function that the forms are about. Returns whether the page still shows the function. */
async function change(changes, said, status = "settings-status") {
  const { id } = known();
  const { settings } = await ask("PATCH", `/api/functions/${id}`, JSON.stringify(changes));
  if (current !== id) return false;
  if (status === "settings-status") draw(id, settings);
  else drawLists(id, settings);
  $(status).textContent = said;
  return true;
}

function changed() {
  const changes = {};
  for (const name of FIELDS) {
    const value = field(name).value.trim();
    if (value === text(name, known().settings[name])) continue;
    if (!value) changes[name] = null;
    // What is no number goes as it is: the API says what is wrong.
    else if (NUMBERS.includes(name)) changes[name] = Number.isNaN(Number(value)) ? value : Number(value);
    else changes[name] = name === "preload" && value.startsWith("[") ? JSON.parse(value) : value;
  }
  return changes;
}

export function begin() {
  onSubmit("settings", "settings-save", async () => {
    await change(changed(), "saved");
  });
  onSubmit("variable", "variable-save", async () => {
    const [name, value] = [$("variable-name").value.trim(), $("variable-value").value];
    const isShown = await change({ environment: { [name]: value } }, `${name} is set`, "variable-status");
    if (isShown) $("variable").reset();
  });
  onSubmit("secret", "secret-save", async () => {
    const [name, value] = [$("secret-name").value.trim(), $("secret-value").value];
    const said = `${name} is set, and not shown again`;
    if (await change({ secrets: { [name]: value } }, said, "secret-status")) $("secret").reset();
  });
}
