// Invocations: as a table with a chart, of one function or of all, and one of them with its output.

import { ask, follow } from "/console/api.js";
import { drawDurations } from "/console/chart.js";
import { $, attempt, bytes, button, element, isMissing, link, ms, show, time } from "/console/dom.js";
import { live, onChange } from "/console/live.js";
import { drawDestinations } from "/console/network.js";

const PART = 50;

/** The invocation that the page shows, and what watches it. */
const shown = { id: null, one: null, watching: null, ended: null };

const isOpen = (one) => one.outcome === "queued" || one.outcome === "running";

/** A table of invocations with its chart, in elements whose ids begin with a prefix. */
export class Runs {
  /** `open` shows an invocation. `withNames` adds the functions. */
  constructor(prefix, open, withNames) {
    Object.assign(this, { prefix, open, withNames, path: null, found: [], cursor: null, turn: 0, reading: 0 });
    this.part("more").addEventListener("click", () => attempt(this.part("more"), () => this.read(this.cursor)));
  }

  part(name) {
    return $(this.prefix ? `${this.prefix}-${name}` : name);
  }

  /** Shows the invocations of a path of the API. */
  async of(path) {
    this.path = path;
    this.found = [];
    this.cursor = null;
    this.isRead = false;
    this.draw();
    if (path) await this.read();
  }

  async read(cursor) {
    const path = this.path;
    if (!path) return;
    const sign = path.includes("?") ? "&" : "?";
    const turn = (this.turn += 1);
    this.reading += 1;
    let part;
    try {
      part = await ask("GET", `${path}${sign}limit=${PART}${cursor ? `&cursor=${cursor}` : ""}`);
    } finally {
      this.reading -= 1;
    }
    // By now the table may be about something else, or a later read is under way.
    if (this.path !== path || this.turn !== turn) return;
    this.found = cursor ? [...this.found, ...part.invocations] : part.invocations;
    this.cursor = part.nextCursor;
    this.isRead = true;
    this.draw();
  }

  /** Reads the first part again, unless a person looks at older parts, or another read is under way. */
  async refresh() {
    if (!this.path || this.reading || this.found.length > PART) return;
    try {
      await this.read();
    } catch { /* The next change reads again. */ }
  }

  draw() {
    this.part("more").hidden = !this.cursor;
    this.part("no-history").hidden = !this.path || !this.isRead || this.found.length > 0;
    const table = this.part("history");
    const focused = table.contains(document.activeElement) ? document.activeElement.title : null;
    table.replaceChildren(...this.found.map((one) => this.row(one)));
    // A person who reads by the keyboard stays where the person was.
    if (focused) [...table.querySelectorAll("button")].find((one) => one.title === focused)?.focus();
    drawDurations(this.part("chart"), this.found, this.open);
  }

  row(one) {
    const row = element("tr");
    const opener = button(one.invocationId.slice(0, 8), () => this.open(one));
    opener.title = `Show invocation ${one.invocationId}`;
    const cell = element("td");
    cell.append(opener);
    row.append(element("td", time(one.executedAt ?? one.createdAt)));
    if (this.withNames) {
      const name = element("td");
      name.append(link(live.functions.get(one.functionId)?.name ?? one.functionId, `#/functions/${one.functionId}`));
      row.append(name);
    }
    row.append(
      element("td", one.outcome, `outcome ${one.outcome}`),
      element("td", one.trigger ?? "–"),
      element("td", one.start ?? "–"),
      element("td", ms(one.durationMs)),
      element("td", bytes(one.peakMemoryBytes)),
      cell,
    );
    return row;
  }
}

/** Shows the outcome and the output of an invocation so far. */
function draw(one) {
  shown.one = one;
  $("outcome").textContent = one.outcome;
  $("outcome").className = `outcome ${one.outcome}`;
  const receipt = isMissing(one.durationMs) ? [] : [
    `version ${one.version}`, one.start, ms(one.durationMs), `waited ${ms(one.queuedMs)}`, `processor ${ms(one.cpuMs)}`,
    bytes(one.peakMemoryBytes), one.truncated ? "cut at MAX_OUTPUT_SIZE" : null,
  ];
  $("receipt").textContent = [one.error, ...receipt].filter(Boolean).join(" · ");
  drawDestinations(one.network ?? []);
  $("output").textContent = one.output;
  $("stderr").textContent = one.stderr;
  $("again").hidden = one.outcome === "running" || isMissing(one.input);
  $("result").hidden = false;
}

/** Stops watching an invocation. The invocation itself goes on. */
function unwatch() {
  shown.watching?.abort();
  shown.watching = null;
  if (document.activeElement === $("stop")) $("execute").focus();
  $("stop").hidden = true;
}

/** Shows no invocation. */
export function showNone() {
  unwatch();
  shown.id = null;
  $("result").hidden = true;
}

/** The number of views that have shown the result. */
let views = 0;

/**
 * Moves the result into the view that shows it, and returns the number of the view. `ended` hears of the end of a run
 * that is watched.
 */
export function place(view, ended) {
  shown.ended = ended;
  view.append($("result"));
  views += 1;
  return views;
}

/** Shows a running invocation's output as the output comes, and the outcome at the end. */
export async function watch(id) {
  unwatch();
  const watching = new AbortController();
  shown.watching = watching;
  shown.id = id;
  draw({ outcome: "running", output: "", stderr: "" });
  $("stop").hidden = false;
  try {
    await follow(`/api/invocations/${id}/events`, ({ name, data }) => {
      if (shown.watching !== watching || name === "ended") return;
      $(name === "stdout" ? "output" : "stderr").append(JSON.parse(data));
    }, watching.signal);
  } catch (error) {
    if (!watching.signal.aborted) throw error;
  } finally {
    if (shown.watching === watching) unwatch();
  }
  // By now the page may show another invocation, or watch the same invocation anew.
  if (!shown.watching && shown.id === id) await Promise.all([showKept(id), shown.ended?.()]);
}

async function showKept(id) {
  const one = await ask("GET", `/api/invocations/${id}`);
  if (shown.id === id) draw(one);
  return one;
}

/** Shows an invocation: what is kept, or what comes. */
export async function showRun(one) {
  unwatch();
  if (isOpen(one)) {
    // The caller does not wait for the end.
    watch(one.invocationId).catch(show);
    return;
  }
  shown.id = one.invocationId;
  await showKept(one.invocationId);
}

async function again() {
  const { one } = shown;
  const path = `/api/invocations/${one.invocationId}/again`;
  const accepted = await ask("POST", path, undefined, { prefer: "respond-async" });
  // By now the page may show another invocation.
  if (shown.one !== one) return;
  $("runs-of").replaceChildren();
  watch(accepted.invocationId).catch(show);
  await shown.ended?.();
}

let all = null;

function query() {
  const fields = { function: $("runs-function").value.trim() };
  for (const name of ["outcome", "trigger"]) fields[name] = $(`runs-${name}`).value.trim();
  if ($("runs-since").value) fields.since = String(Math.floor(Date.now() / 1000) - Number($("runs-since").value));
  const chosen = Object.entries(fields).filter(([, value]) => value);
  return chosen.length ? `?${new URLSearchParams(chosen)}` : "";
}

/** Offers these texts in the list of a field. */
function offer(list, texts) {
  $(list).replaceChildren(...[...new Set(texts)].map((text) => {
    const option = element("option");
    option.value = text;
    return option;
  }));
}

async function readAll() {
  await all.of(`/api/invocations${query()}`);
  const coming = (live.overview?.nextRuns ?? []).map((one) => `schedule:${one.schedule}`);
  const seen = all.found.map((one) => one.trigger).filter(Boolean);
  offer("runs-triggers", ["api", "http", "schedule", ...coming, ...seen]);
}

/** How many invocations have ended on this node within the hour, as the table has last shown them. */
let counted = 0;

/** Shows what has ended meanwhile. */
function keepUp() {
  const ended = (live.overview?.minutes ?? []).reduce((all, one) => all + one.invocations, 0);
  if (ended === counted) return;
  counted = ended;
  if (!$("runs-section").hidden) all.refresh();
}

/** Prepares the view of all functions' invocations. */
export function begin() {
  all = new Runs("runs", (one) => { location.hash = `#/runs/${one.invocationId}`; }, true);
  $("runs-filter").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt($("runs-show"), readAll);
  });
  for (const id of ["runs-outcome", "runs-trigger", "runs-since"]) {
    $(id).addEventListener("change", () => attempt($("runs-show"), readAll));
  }
  $("stop").addEventListener("click", () => {
    attempt($("stop"), () => ask("DELETE", `/api/invocations/${shown.id}`));
  });
  $("again").addEventListener("click", () => attempt($("again"), again));
  onChange(keepUp);
}

/** Shows the invocations of all functions, and one of them with its output. */
export async function showAll(id) {
  const view = place($("runs-result"), () => all.read());
  if (shown.id !== id) {
    showNone();
    $("runs-of").replaceChildren();
  }
  offer("runs-functions", [...live.functions.values()].map((one) => one.name));
  await readAll();
  if (!id || shown.id === id || views !== view) return;
  const one = await ask("GET", `/api/invocations/${id}`);
  if (views !== view) return;
  const owner = live.functions.get(one.functionId);
  $("runs-of").replaceChildren(link(owner?.name ?? one.functionId, `#/functions/${one.functionId}`), ` · ${id}`);
  await showRun(one);
}
