// The console: a page over the API that loads nothing from elsewhere. The page shows a function's output as text, never
// as HTML. Each view has a place in the address: #/functions/ID/code.

import { begin as beginCode, showNew } from "/console/code.js";
import { $, show } from "/console/dom.js";
import { begin as beginFunction, leaveFunction, showFunction } from "/console/function.js";
import { begin as beginFunctions } from "/console/functions.js";
import { headers } from "/console/api.js";
import { begin as beginLive, live, onChange } from "/console/live.js";
import { begin as beginNetwork } from "/console/network.js";
import { begin as beginOverview, showOverview } from "/console/overview.js";
import { begin as beginRuns, showAll } from "/console/runs.js";
import { begin as beginSettings } from "/console/settings.js";
import { begin as beginTokens, readTokens } from "/console/tokens.js";
import { begin as beginTriggers } from "/console/triggers.js";

/** The sections of the page, each with the entry of the navigation that it belongs to. */
const SECTIONS = { overview: "overview", functions: "functions", new: "functions", runs: "runs", tokens: "tokens" };

function showSection(name, isFunction) {
  for (const section of Object.keys(SECTIONS)) $(`${section}-section`).hidden = section !== name;
  $("detail").hidden = !isFunction;
  document.body.dataset.view = isFunction ? "function" : name;
  for (const section of new Set(Object.values(SECTIONS))) {
    if (section === SECTIONS[name]) $(`nav-${section}`).setAttribute("aria-current", "page");
    else $(`nav-${section}`).removeAttribute("aria-current");
  }
}

/** Shows what the address names. */
async function route() {
  const [name = "", id, tab] = location.hash.replace(/^#\/?/, "").split("/");
  $("problem").hidden = true;
  // A new token is shown once, and not to the next person.
  $("token-status").textContent = "";
  if (!(name === "functions" && id)) leaveFunction();
  try {
    if (name === "functions") {
      showSection("functions", Boolean(id));
      if (id) await showFunction(id, tab);
    } else if (name === "new") {
      showSection("new", false);
      await showNew();
    } else if (name === "runs") {
      showSection("runs", false);
      await showAll(id);
    } else if (name === "tokens") {
      showSection("tokens", false);
      await readTokens();
    } else {
      showSection("overview", false);
      showOverview();
    }
  } catch (error) {
    show(error);
  }
}

function drawHealth() {
  const { health } = live.overview ?? {};
  if (live.problem) {
    $("health").textContent = live.problem;
  } else if (!live.isThere) {
    $("health").textContent = live.hasFunctions ? "the service does not answer" : "…";
  } else if (health) {
    const isolation = health.isolation ? ` · isolation: ${health.isolation.join("; ")}` : "";
    $("health").textContent = (health.status === "ok" ? "healthy" : health.reason) + isolation;
  } else {
    readHealth();
  }
}

/** A token that is for some functions sees no overview. Health needs no token. */
async function readHealth() {
  try {
    const health = await (await fetch("/health", { headers: headers() })).json();
    if (!live.overview) $("health").textContent = health.status === "ok" ? "healthy" : health.reason;
  } catch { /* The stream of events ends, too, and says so. */ }
}

for (const begin of [beginFunctions, beginFunction, beginCode, beginNetwork, beginSettings, beginTriggers, beginRuns]) {
  begin();
}
beginTokens();
beginOverview();
onChange(drawHealth);
$("problem-close").addEventListener("click", () => { $("problem").hidden = true; });
addEventListener("hashchange", route);
beginLive();
route();
