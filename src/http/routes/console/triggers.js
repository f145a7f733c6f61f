// What runs a function by itself, in the console: requests over HTTP, schedules, and whom the ends are told to.

import { ask, askExactly } from "/console/api.js";
import { $, attempt, button, item, onSubmit, time } from "/console/dom.js";
import { live, onChange } from "/console/live.js";

/** The function that the page is about, and the function whose settings the forms have. */
let current = null;
let read = null;

/** Prepares the forms. */
export function begin() {
  onSubmit("http", "http-save", saveHttp);
  onSubmit("schedule", "schedule-save", saveSchedule);
  onSubmit("notify", "notify-save", saveNotify);
  $("http-copy").addEventListener("click", () => attempt($("http-copy"), async () => {
    // Browsers have the clipboard for https and this machine only.
    if (!navigator.clipboard) {
      getSelection().selectAllChildren($("http-path"));
      $("http-status").textContent = "the URL is selected; copy the URL with the keyboard";
      return;
    }
    await navigator.clipboard.writeText($("http-path").textContent);
    $("http-status").textContent = "the URL is copied";
  }));
  // The port comes with the overview.
  onChange(() => {
    const one = live.functions.get(current);
    if (one) $("http-path").textContent = urlOf(one.name);
  });
}

/** The URL at which a function answers, or where such a URL would be. */
function urlOf(name) {
  const path = `/f/${encodeURIComponent(name)}`;
  const { functionsPort: port, functionsDomain: domain } = live.overview ?? {};
  if (domain) return `${location.protocol}//${name}.${domain}/`;
  return port ? `${location.protocol}//${location.hostname}:${port}${path}` : path;
}

/** Reads what runs a function. */
export async function readTriggers({ functionId: id, name }) {
  current = id;
  read = null;
  // Until the settings are read, what a person chooses would be drawn over.
  $("part-triggers").setAttribute("aria-busy", "true");
  for (const form of ["http", "schedule", "notify"]) $(form).reset();
  for (const part of ["http-status", "schedule-status", "notify-status"]) $(part).textContent = "";
  for (const part of ["schedules", "notifications"]) $(part).replaceChildren();
  $("http-path").textContent = urlOf(name);
  try {
    const settings = await ask("GET", `/api/functions/${id}/settings`);
    if (current !== id) return;
    read = id;
    drawSettings(settings);
  } finally {
    if (current === id) $("part-triggers").setAttribute("aria-busy", "false");
  }
  await Promise.all([readSchedules(id), readNotifications(id)]);
}

function drawSettings(settings) {
  $("http-mode").value = settings.http;
  $("notify-url").value = settings.notify?.url ?? "";
  $("notify-success").checked = settings.notify?.on.includes("success") ?? false;
}

async function saveHttp() {
  // A form that was not read yet must not take the function off the web.
  if (read === null) return;
  const id = read;
  const { settings } = await ask("PATCH", `/api/functions/${id}`, JSON.stringify({ http: $("http-mode").value }));
  if (current !== id) return;
  drawSettings(settings);
  $("http-status").textContent = "saved";
}

async function saveNotify() {
  if (read === null) return;
  const id = read;
  const url = $("notify-url").value.trim();
  const notify = url ? { url, on: $("notify-success").checked ? ["failure", "success"] : ["failure"] } : null;
  const { settings, notifySecret } = await ask("PATCH", `/api/functions/${id}`, JSON.stringify({ notify }));
  if (current !== id) return;
  drawSettings(settings);
  const key = notifySecret ? `; the key of the signatures, which is not shown again: ${notifySecret}` : "";
  const isBack = notify === null && settings.notify ? ": what function.toml says counts again" : "";
  $("notify-status").textContent = `saved${isBack}${key}`;
}

async function readNotifications(id) {
  const sent = await ask("GET", `/api/functions/${id}/notifications`);
  if (current !== id) return;
  $("notifications").replaceChildren(...sent.slice(0, 10).map((one) => {
    const tries = `${one.tries} ${one.tries === 1 ? "try" : "tries"}`;
    const last = one.lastError ?? (one.lastStatus ? `answered ${one.lastStatus}` : null);
    return item([time(one.endedAt), one.type, one.state, tries, last].filter(Boolean).join(" · "));
  }));
}

async function readSchedules(id) {
  const schedules = await askExactly(`/api/functions/${id}/schedules`);
  if (current !== id) return;
  $("schedules").replaceChildren(...schedules.map((one) => {
    const path = `/api/functions/${id}/schedules/${encodeURIComponent(one.name)}`;
    const next = one.enabled ? `next ${one.upcoming.map(time).join(", ")}` : "pauses";
    const last = one.lastOutcome ? `last run ${one.lastOutcome}` : null;
    const facts = [one.name, one.cron, one.timezone, next, last, one.declared ? "of function.toml" : null];
    const change = (work) => async () => {
      await work();
      if (current === id) await readSchedules(id);
    };
    const { cron, timezone, input, overlap, missed } = one;
    const paused = JSON.stringify({ cron, timezone, input, overlap, missed, enabled: !one.enabled });
    return item(
      facts.filter(Boolean).join(" · "),
      button(`Run ${one.name} now`, change(() => ask("POST", `${path}/run`))),
      button(one.enabled ? `Pause ${one.name}` : `Resume ${one.name}`, change(() => ask("PUT", path, paused))),
      button(`Remove ${one.name}`, change(() => ask("DELETE", path))),
    );
  }));
}

async function saveSchedule() {
  const id = current;
  const name = encodeURIComponent($("schedule-name").value.trim());
  const body = { cron: $("schedule-cron").value, timezone: $("schedule-zone").value.trim() || "UTC" };
  const { nextAt } = await ask("PUT", `/api/functions/${id}/schedules/${name}`, JSON.stringify(body));
  if (current !== id) return;
  $("schedule").reset();
  $("schedule-status").textContent = `saved: the next run is at ${time(nextAt)}`;
  await readSchedules(id);
}
