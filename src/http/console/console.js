// The console: one page over the API, with nothing from elsewhere. Whatever a function says is shown as text, never as HTML.

const $ = (id) => document.getElementById(id);
const state = { functions: [], instances: {}, current: null, shown: null, cursor: null, history: [] };

/** A problem of the API, in its own words. */
class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? `the service answered ${status}`);
    this.log = body?.buildLog;
    this.status = status;
  }
}

function headers(more = {}) {
  const token = sessionStorage.getItem("token");
  return token ? { ...more, authorization: `Bearer ${token}` } : more;
}

/** Asks the API; an execution that failed is a result, a problem is thrown. Asks for the token when there must be one. */
async function ask(method, path, body, more = {}) {
  const all = body === undefined ? more : { ...more, "content-type": "application/json" };
  const response = await fetch(path, { method, headers: headers(all), body });
  const answer = await response.json().catch(() => null);
  if (response.status === 401) {
    await signIn();
    return ask(method, path, body, more);
  }
  if (response.headers.get("content-type")?.includes("problem+json")) throw new Problem(response.status, answer);
  return answer;
}

/** The events of a part of a stream, and what is left of it. */
function events(text) {
  const blocks = text.split("\n\n");
  const rest = blocks.pop();
  const parsed = blocks.map((block) => {
    const field = (name) => block.split("\n").filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2)).join("\n");
    return { name: field("event"), data: field("data") };
  });
  return [parsed.filter((one) => one.name), rest];
}

/** Hears of each event of a stream as it comes. */
async function follow(path, hear) {
  const response = await fetch(path, { headers: headers() });
  if (!response.ok) throw new Problem(response.status, await response.json().catch(() => null));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    let heard;
    [heard, rest] = events(rest + part.value);
    heard.forEach(hear);
  }
}

let signingIn = null;
function signIn() {
  signingIn ??= new Promise((resolve) => {
    const dialog = $("sign-in");
    dialog.addEventListener("close", () => {
      sessionStorage.setItem("token", $("token").value);
      $("token").value = "";
      signingIn = null;
      resolve();
    }, { once: true });
    // Without it there is nothing to see.
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
  });
  return signingIn;
}

function show(problem) {
  $("problem-text").textContent = problem.message;
  $("problem-log").textContent = problem.log ?? "";
  $("problem-log").hidden = !problem.log;
  $("problem").hidden = false;
}

/** Does something that a person asked for, and shows what went wrong with it. */
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

const time = (seconds) => (seconds === undefined || seconds === null ? "–" : new Date(seconds * 1000).toLocaleString());
const ms = (value) => (value === undefined || value === null ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);
const bytes = (value) => (!value ? "–" : value < 1e6 ? `${(value / 1e3).toFixed(1)} kB` : `${(value / 1e6).toFixed(1)} MB`);

async function refresh() {
  const [functions, instances] = await Promise.all([ask("GET", "/api/functions"), ask("GET", "/api/instances")]);
  state.functions = functions;
  state.instances = Object.fromEntries(instances.map((one) => [one.functionId, one]));
  drawFunctions();
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
    $("detail-facts").textContent = `${current.functionId} · ${current.language} · version ${current.version} · deployed ${time(current.createdAt)}`;
  }
}

async function open(id) {
  state.current = id;
  state.shown = null;
  $("result").hidden = true;
  $("stop").hidden = true;
  drawFunctions();
  $("detail-title").focus();
  await Promise.all([readHistory(), readVersions()]);
}

async function readVersions() {
  const id = state.current;
  const versions = await ask("GET", `/api/functions/${id}/versions`);
  if (state.current !== id) return;
  $("versions").replaceChildren(...versions.map((one) => {
    const item = element("li");
    item.append(element("span", `${one.version}${one.isCurrent ? ", which runs" : ""} · ${one.language} · ${time(one.createdAt)} · ${bytes(one.zipBytes)}`));
    if (!one.isCurrent) {
      const button = element("button", `Run version ${one.version} again`);
      button.type = "button";
      button.addEventListener("click", () => attempt(button, async () => {
        const changed = await ask("POST", `/api/functions/${id}/rollback?version=${one.version}`);
        $("update-status").textContent = changed.message;
        await Promise.all([refresh(), readVersions()]);
      }));
      item.append(button);
    }
    return item;
  }));
}

/** What an invocation has come to so far. */
function showInvocation(one) {
  $("outcome").textContent = one.outcome;
  $("outcome").className = `outcome ${one.outcome}`;
  const facts = one.durationMs === undefined || one.durationMs === null ? [one.error] : [one.error, `version ${one.version}`, one.start, ms(one.durationMs),
    `waited ${ms(one.queuedMs)}`, `processor ${ms(one.cpuMs)}`, bytes(one.peakMemoryBytes), one.truncated ? "cut at MAX_OUTPUT_SIZE" : null];
  $("receipt").textContent = facts.filter(Boolean).join(" · ");
  $("output").textContent = one.output;
  $("stderr").textContent = one.stderr;
  $("result").hidden = false;
}

/** Shows an invocation that goes on, as it goes. */
async function watch(id) {
  state.shown = id;
  showInvocation({ outcome: "running", output: "", stderr: "" });
  $("stop").hidden = false;
  await follow(`/api/invocations/${id}/events`, ({ name, data }) => {
    if (state.shown === id && name !== "ended") $(name === "stdout" ? "output" : "stderr").append(JSON.parse(data));
  });
  if (state.shown !== id) return;
  $("stop").hidden = true;
  showInvocation(await ask("GET", `/api/invocations/${id}`));
}

async function readHistory(cursor) {
  const id = state.current;
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
      state.shown = one.invocationId;
      showInvocation(await ask("GET", `/api/invocations/${one.invocationId}`));
    }));
    cell.append(button);
    row.append(element("td", time(one.executedAt ?? one.createdAt)), element("td", one.outcome, `outcome ${one.outcome}`),
      element("td", one.start ?? "–"), element("td", ms(one.durationMs)), element("td", bytes(one.peakMemoryBytes)), cell);
    return row;
  }));
  drawChart();
}

/** A bar for each invocation, the last on the right; heights are logarithmic, as a cold or slow one is a thousand times as long. */
function drawChart() {
  const bars = state.history.filter((one) => one.durationMs !== null && one.durationMs !== undefined).slice(0, 100).reverse();
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
    const bar = svg("rect", { x: 600 - (bars.length - at) * width, y: 120 - tall, width: Math.max(1, width - 2), height: tall, class: one.outcome });
    bar.append(svg("title", {}, `${one.outcome}, ${ms(one.durationMs)}`));
    return bar;
  });
  $("chart").replaceChildren(...drawn, svg("text", { x: 2, y: 12 }, bars.length ? `up to ${ms(longest)}` : "nothing yet"));
}

/** Posts or puts a zip and shows how far that is; `at` names the elements that show it. */
function upload(method, path, form, at) {
  const [bar, status] = [$(at.progress), $(at.status)];
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, path);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.setRequestHeader("accept", "text/event-stream");
    bar.hidden = false;
    request.upload.addEventListener("progress", (event) => {
      bar.value = event.loaded / event.total;
      status.textContent = `uploading, ${Math.round(bar.value * 100)} %`;
    });
    request.upload.addEventListener("load", () => {
      bar.removeAttribute("value");
      status.textContent = "building …";
    });
    // The answer is a stream of events; what has come of it so far is all there is to see.
    const heard = () => events(request.responseText)[0];
    request.addEventListener("progress", () => {
      const log = heard().filter((one) => one.name === "log");
      if (log.length) status.textContent = `building … ${log.at(-1).data}`;
    });
    request.addEventListener("error", () => reject(new Problem(0, { detail: "the service did not answer" })));
    request.addEventListener("loadend", () => { bar.hidden = true; bar.value = 0; status.textContent = ""; });
    request.addEventListener("load", () => {
      let body = null;
      const end = request.status === 200 ? heard().findLast((one) => one.name === "deployed" || one.name === "problem") : undefined;
      try { body = JSON.parse(end ? end.data : request.responseText); } catch { /* Not this service's. */ }
      end?.name === "deployed" ? resolve(body) : reject(new Problem(body?.status ?? request.status, body));
    });
    request.send(form);
  });
}

$("upload").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt($("deploy"), async () => {
    const form = new FormData();
    form.append("code", $("zip").files[0]);
    if ($("name").value) form.append("name", $("name").value);
    if ($("language").value) form.append("language", $("language").value);
    const deployed = await upload("POST", "/api/submit", form, { progress: "progress", status: "upload-status" });
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
    const updated = await upload("PUT", `/api/functions/${id}`, form, { progress: "update-progress", status: "update-status" });
    $("update").reset();
    await refresh();
    if (state.current !== id) return;
    $("update-status").textContent = updated.message;
    await readVersions();
  });
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
    const accepted = await ask("POST", `/api/functions/${id}/invoke`, JSON.stringify(input), { prefer: "respond-async" });
    if (state.current !== id) return;
    await watch(accepted.invocationId);
    await Promise.all([readHistory(), refresh()]);
  });
});
$("stop").addEventListener("click", () => attempt($("stop"), () => ask("DELETE", `/api/invocations/${state.shown}`)));

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
    // The one that was asked about, whatever is shown by now.
    const { id } = $("confirm").dataset;
    await ask("DELETE", `/api/functions/${id}`);
    if (state.current === id) state.current = null;
    await refresh();
    $("upload-status").textContent = "deleted";
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
  } catch { /* As it says. */ }
  $("health").textContent = text;
}

watchHealth();
refresh().catch(show);
setInterval(watchHealth, 5000);
// What others do, while nobody is signing in and the page is looked at.
setInterval(() => { if (!document.hidden && !signingIn) refresh().catch(() => {}); }, 3000);
