// The console: a page over the API that loads nothing from elsewhere. The page shows a function's output as text, never
// as HTML.

import { Problem, ask, follow, headers, isSigningIn, upload } from "/console-api.js";
import { begin, readTokens, readTriggers } from "/console-triggers.js";
import { drawDestinations, readNetwork, saveNetwork } from "/console-network.js";

const $ = (id) => document.getElementById(id);
const state = { functions: [], instances: {}, current: null, shown: null, watching: null, cursor: null, history: [] };

function show(problem) {
  $("problem-text").textContent = problem.message;
  $("problem-log").textContent = problem.log ?? "";
  $("problem-log").hidden = !problem.log;
  $("problem").hidden = false;
}

/** Does the work of a button, and shows the problem when the work fails. */
async function attempt(button, work) {
  button.disabled = true;
  try {
    $("problem").hidden = true;
    await work();
  } catch (error) {
    show(error);
  } finally {
    button.disabled = false;
  }
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const isMissing = (value) => value === undefined || value === null;
const time = (seconds) => (isMissing(seconds) ? "–" : new Date(seconds * 1000).toLocaleString());
const ms = (value) => (isMissing(value) ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);
const bytes = (value) => {
  if (!value) return "–";
  return value < 1e6 ? `${(value / 1e3).toFixed(1)} kB` : `${(value / 1e6).toFixed(1)} MB`;
};

async function refresh() {
  const [functions, instances] = await Promise.all([ask("GET", "/api/functions"), ask("GET", "/api/instances")]);
  state.functions = functions;
  state.instances = Object.fromEntries(instances.map((one) => [one.functionId, one]));
  drawFunctions();
  drawCost();
}

// What the limit on containers costs, and what a higher limit would cost.
function drawCost() {
  const all = Object.values(state.instances);
  const starts = all.reduce((sum, one) => sum + one.coldStartsAfterEviction, 0);
  const known = all.filter((one) => one.idleMemoryBytes);
  const idle = known.reduce((sum, one) => sum + one.idle, 0);
  const memory = known.reduce((sum, one) => sum + one.idle * one.idleMemoryBytes, 0) / idle;
  const price = idle > 0 ? `; each further container idles in about ${bytes(memory)}` : "";
  $("cost").textContent = `A higher DOCKER_CONTAINER_LIMIT would have saved ${starts} starts in the last hour${price}.`;
  $("cost").hidden = starts === 0;
}

function drawFunctions() {
  const list = $("functions");
  const focused = document.activeElement?.dataset?.id;
  list.replaceChildren(...state.functions.toReversed().map((one) => {
    const button = element("button");
    button.type = "button";
    button.dataset.id = one.functionId;
    if (state.current === one.functionId) button.setAttribute("aria-current", "true");
    const warm = state.instances[one.functionId];
    const facts = `${one.language} · last run ${time(one.lastExecuted)} · ${warm ? warm.idle + warm.busy : 0} warm`;
    button.append(element("strong", one.name), element("span", facts, "facts"));
    button.addEventListener("click", () => attempt(button, () => open(one.functionId)));
    const item = element("li");
    item.append(button);
    return item;
  }));
  if (focused) list.querySelector(`[data-id="${focused}"]`)?.focus();
  $("empty").hidden = state.functions.length > 0;
  const current = state.functions.find((one) => one.functionId === state.current);
  $("detail").hidden = !current;
  if (current) {
    $("detail-title").textContent = current.name;
    const facts = [current.functionId, current.language, `version ${current.version}`];
    $("detail-facts").textContent = [...facts, `deployed ${time(current.createdAt)}`].join(" · ");
  }
}

async function open(id) {
  unwatch();
  state.current = id;
  state.shown = null;
  $("result").hidden = true;
  // The page must not show data of another function as this function's.
  state.history = [];
  state.cursor = null;
  $("update").reset();
  for (const part of ["update-progress", "more", "no-history"]) $(part).hidden = true;
  for (const part of ["update-status", "versions", "history", "chart"]) $(part).replaceChildren();
  drawFunctions();
  $("detail-title").focus();
  const one = state.functions.find((other) => other.functionId === id);
  await Promise.all([readHistory(), readVersions(), readNetwork(id), readTriggers(one)]);
}

async function readVersions() {
  const id = state.current;
  const versions = await ask("GET", `/api/functions/${id}/versions`);
  if (state.current !== id) return;
  $("versions").replaceChildren(...versions.map((one) => {
    const item = element("li");
    const number = `${one.version}${one.isCurrent ? ", which runs" : ""}`;
    item.append(element("span", [number, one.language, time(one.createdAt), bytes(one.zipBytes)].join(" · ")));
    if (!one.isCurrent) {
      const button = element("button", `Run version ${one.version} again`);
      button.type = "button";
      button.addEventListener("click", () => attempt(button, async () => {
        const changed = await ask("POST", `/api/functions/${id}/rollback?version=${one.version}`);
        await refresh();
        if (state.current !== id) return;
        $("update-status").textContent = changed.message;
        await readVersions();
      }));
      item.append(button);
    }
    return item;
  }));
}

/** Shows the outcome and the output of an invocation so far. */
function showInvocation(one) {
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
  $("result").hidden = false;
}

/** Stops watching an invocation. The invocation itself goes on. */
function unwatch() {
  state.watching?.abort();
  state.watching = null;
  if (document.activeElement === $("stop")) $("execute").focus();
  $("stop").hidden = true;
}

/** Shows a running invocation's output as the output comes, and the outcome at the end. */
async function watch(id) {
  unwatch();
  const watching = new AbortController();
  state.watching = watching;
  state.shown = id;
  showInvocation({ outcome: "running", output: "", stderr: "" });
  $("stop").hidden = false;
  $("stop").dataset.id = id;
  try {
    await follow(`/api/invocations/${id}/events`, ({ name, data }) => {
      if (state.watching !== watching || name === "ended") return;
      $(name === "stdout" ? "output" : "stderr").append(JSON.parse(data));
    }, watching.signal);
  } catch (error) {
    if (!watching.signal.aborted) throw error;
  } finally {
    if (state.watching === watching) unwatch();
  }
  // By now the page may show another invocation, or watch the same invocation anew.
  if (!state.watching && state.shown === id) await Promise.all([showKept(id), readHistory(), refresh()]);
}

async function showKept(id) {
  const one = await ask("GET", `/api/invocations/${id}`);
  if (state.shown === id) showInvocation(one);
}

async function readHistory(cursor) {
  const id = state.current;
  if (!id) return;
  const part = await ask("GET", `/api/functions/${id}/invocations?limit=50${cursor ? `&cursor=${cursor}` : ""}`);
  if (state.current !== id) return;
  state.history = cursor ? [...state.history, ...part.invocations] : part.invocations;
  state.cursor = part.nextCursor;
  $("more").hidden = !part.nextCursor;
  $("no-history").hidden = state.history.length > 0;
  $("history").replaceChildren(...state.history.map((one) => {
    const row = element("tr");
    const cell = element("td");
    const button = element("button", one.invocationId.slice(0, 8));
    button.type = "button";
    button.title = `Show invocation ${one.invocationId}`;
    button.addEventListener("click", () => attempt(button, async () => {
      unwatch();
      if (one.outcome === "queued" || one.outcome === "running") {
        watch(one.invocationId).catch(show);
      } else {
        state.shown = one.invocationId;
        await showKept(one.invocationId);
      }
    }));
    cell.append(button);
    row.append(
      element("td", time(one.executedAt ?? one.createdAt)),
      element("td", one.outcome, `outcome ${one.outcome}`),
      element("td", one.trigger ?? "–"),
      element("td", one.start ?? "–"),
      element("td", ms(one.durationMs)),
      element("td", bytes(one.peakMemoryBytes)),
      cell,
    );
    return row;
  }));
  drawChart();
}

/**
 * Draws a bar for each invocation, the last on the right. Heights are logarithmic, as a cold start or a slow invocation
 * takes a thousand times as long.
 */
function drawChart() {
  const bars = state.history.filter((one) => !isMissing(one.durationMs)).slice(0, 100).reverse();
  const svg = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.append(text);
    return made;
  };
  const longest = Math.max(1, ...bars.map((one) => one.durationMs));
  const height = (value) => 4 + (96 * Math.log10(1 + value)) / Math.log10(1 + longest);
  const width = 600 / Math.max(20, bars.length);
  const drawn = bars.map((one, at) => {
    const tall = height(one.durationMs);
    const place = { x: 600 - (bars.length - at) * width, y: 120 - tall, width: Math.max(1, width - 2), height: tall };
    const bar = svg("rect", { ...place, class: one.outcome });
    bar.append(svg("title", {}, `${one.outcome}, ${ms(one.durationMs)}`));
    return bar;
  });
  const caption = bars.length ? `up to ${ms(longest)}` : "no durations yet";
  $("chart").replaceChildren(...drawn, svg("text", { x: 2, y: 12 }, caption));
}

/** A function that shows an upload's progress in two elements, while `isShown` is true. */
function drawn(progress, status, isShown) {
  return (text, value) => {
    if (!isShown()) return;
    $(status).textContent = text;
    $(progress).hidden = !text;
    if (value === undefined) $(progress).removeAttribute("value");
    else $(progress).value = value;
  };
}

$("upload").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt($("deploy"), async () => {
    const form = new FormData();
    form.append("code", $("zip").files[0]);
    if ($("name").value) form.append("name", $("name").value);
    if ($("language").value) form.append("language", $("language").value);
    const deployed = await upload("POST", "/api/submit", form, drawn("progress", "upload-status", () => true));
    $("upload").reset();
    await refresh();
    $("upload-status").textContent = deployed.message;
    await open(deployed.functionId);
  });
});

$("update").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt($("update-deploy"), async () => {
    const id = state.current;
    const form = new FormData();
    form.append("code", $("update-zip").files[0]);
    const draw = drawn("update-progress", "update-status", () => state.current === id);
    const updated = await upload("PUT", `/api/functions/${id}`, form, draw);
    await refresh();
    if (state.current !== id) return;
    $("update").reset();
    $("update-status").textContent = updated.message;
    await readVersions();
  });
});

$("network").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt($("network-save"), saveNetwork);
});

const drop = $("drop");
for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  $("zip").files = event.dataTransfer.files;
  $("upload").requestSubmit();
});

$("run").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt($("execute"), async () => {
    let input;
    try {
      input = JSON.parse($("input").value || "{}");
    } catch (error) {
      throw new Problem(0, { detail: `the input is not JSON: ${error.message}` });
    }
    const id = state.current;
    const body = JSON.stringify(input);
    const accepted = await ask("POST", `/api/functions/${id}/invoke`, body, { prefer: "respond-async" });
    // The button does not wait for the end: a person may run another function meanwhile.
    if (state.current === id) {
      watch(accepted.invocationId).catch(show);
      await readHistory();
    }
  });
});
$("stop").addEventListener("click", () => {
  attempt($("stop"), () => ask("DELETE", `/api/invocations/${$("stop").dataset.id}`));
});

$("delete").addEventListener("click", () => {
  const one = state.functions.find((other) => other.functionId === state.current);
  $("confirm-text").textContent = `Delete ${one.name} with its history? This can't be undone.`;
  $("confirm").dataset.id = one.functionId;
  $("confirm").returnValue = "cancel";
  $("confirm").showModal();
});
$("confirm").addEventListener("close", () => {
  if ($("confirm").returnValue !== "yes") return;
  attempt($("delete"), async () => {
    // The dialog asked about this function. By now the page may show another function.
    const { id } = $("confirm").dataset;
    await ask("DELETE", `/api/functions/${id}`);
    if (state.current === id) {
      unwatch();
      state.current = state.shown = null;
    }
    await refresh();
    $("upload-status").textContent = "the function is deleted";
  });
});
$("more").addEventListener("click", () => attempt($("more"), () => readHistory(state.cursor)));
$("problem-close").addEventListener("click", () => { $("problem").hidden = true; });

async function watchHealth() {
  let text = "the service does not answer";
  try {
    const health = await (await fetch("/health", { headers: headers() })).json();
    text = health.status === "ok" ? "healthy" : health.reason;
    if (health.isolation) text += ` · isolation: ${health.isolation.join("; ")}`;
  } catch { /* The text says so. */ }
  $("health").textContent = text;
}

begin(attempt);
watchHealth();
refresh().then(readTokens).catch(show);
setInterval(watchHealth, 5000);
// The list shows changes by other clients, unless a person signs in or the page is hidden.
setInterval(() => { if (!document.hidden && !isSigningIn()) refresh().catch(() => {}); }, 3000);
