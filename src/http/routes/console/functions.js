// The list of functions, and the upload of a new one.

import { upload } from "/console/api.js";
import { $, drawn, element, onSubmit, time } from "/console/dom.js";
import { functions, known, live, onChange } from "/console/live.js";

/** The function that is open, and the list as it was last drawn. */
let current = null;
let drawnList = "";

/** Marks the function that is open. */
export function mark(id) {
  current = id;
  draw();
}

function draw() {
  const wanted = $("search").value.trim().toLowerCase();
  const list = functions().filter((one) => one.name.toLowerCase().includes(wanted) || one.functionId === wanted);
  $("empty").hidden = !live.hasFunctions || live.functions.size > 0;
  $("search-label").hidden = live.functions.size < 8;
  // Three hundred rows are drawn again only when a row has changed.
  const text = JSON.stringify([current, list]);
  if (text === drawnList) return;
  drawnList = text;
  const focused = document.activeElement?.dataset?.id;
  $("functions").replaceChildren(...list.map((one) => {
    const link = element("a");
    link.href = `#/functions/${one.functionId}`;
    link.dataset.id = one.functionId;
    if (current === one.functionId) link.setAttribute("aria-current", "true");
    const facts = `${one.language} · last run ${time(one.lastExecuted)} · ${one.warm} warm`;
    link.append(element("strong", one.name), element("span", facts, "facts"));
    const item = element("li");
    item.append(link);
    return item;
  }));
  if (focused) $("functions").querySelector(`[data-id="${focused}"]`)?.focus();
}

async function deploy() {
  const form = new FormData();
  form.append("code", $("zip").files[0]);
  if ($("name").value) form.append("name", $("name").value);
  if ($("language").value) form.append("language", $("language").value);
  const deployed = await upload("POST", "/api/submit", form, drawn("progress", "upload-status", () => true));
  $("upload").reset();
  $("upload-status").textContent = [deployed.message, ...(deployed.warnings ?? [])].join(" · ");
  await known(deployed.functionId);
  location.hash = `#/functions/${deployed.functionId}`;
}

export function begin() {
  onSubmit("upload", "deploy", deploy);
  $("search").addEventListener("input", draw);
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
  onChange(draw);
}
