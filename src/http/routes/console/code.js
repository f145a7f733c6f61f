// A function's code: the editor, its files, the versions, and what deploys them.

import { Problem, ask, askBytes, upload } from "/console/api.js";
import { $, attempt, button, bytes, confirm, drawn, element, onSubmit, time } from "/console/dom.js";
import { known, live } from "/console/live.js";

/** The editor and the zips, which load only when a person looks at code. */
let parts = null;

/** What is being edited: the files, the one that is open, and of which function and version. */
const work = { files: [], open: null, id: null, version: null, isChanged: false, edits: 0 };
let view = null;
let isSwitching = false;
let current = null;

async function load() {
  if (!parts) {
    const [editor, zip] = await Promise.all([import("/console/editor.js"), import("/console/zip.js")]);
    parts = { ...editor, ...zip };
  }
  return parts;
}

function theme({ EditorView, HighlightStyle, syntaxHighlighting, tags }) {
  const look = EditorView.theme({
    "&": { fontSize: "0.9rem", color: "var(--text)", backgroundColor: "var(--back)", maxHeight: "32rem" },
    ".cm-scroller": { fontFamily: "ui-monospace, monospace", minHeight: "14rem", overflow: "auto" },
    ".cm-content": { caretColor: "var(--text)" },
    ".cm-gutters": { backgroundColor: "var(--card)", color: "var(--soft)", border: "none" },
    "&.cm-focused": { outline: "3px solid var(--act)" },
    ".cm-cursor": { borderLeftColor: "var(--text)" },
    ".cm-selectionBackground, &.cm-focused .cm-selectionBackground": { backgroundColor: "var(--line)" },
  });
  const colours = HighlightStyle.define([
    { tag: [tags.keyword, tags.operatorKeyword, tags.controlKeyword], color: "var(--act)" },
    { tag: [tags.string, tags.special(tags.string)], color: "var(--ok)" },
    { tag: [tags.number, tags.bool, tags.null], color: "var(--warn)" },
    { tag: tags.comment, color: "var(--soft)", fontStyle: "italic" },
    { tag: [tags.function(tags.variableName), tags.definition(tags.variableName)], fontWeight: "600" },
  ]);
  return [look, syntaxHighlighting(colours)];
}

/** Makes the editor, in a shadow root: there its styles need no inline style, which the page's policy forbids. */
function makeView() {
  const { EditorView } = parts;
  const root = $("editor").attachShadow({ mode: "open" });
  view = new EditorView({ parent: root, root });
  // People who use the keyboard scroll with it.
  view.scrollDOM.tabIndex = 0;
}

function stateOf(file) {
  const { EditorState, EditorView, drawSelection, history, historyKeymap, defaultKeymap, keymap, lineNumbers } = parts;
  const { bracketMatching, indentOnInput, indentUnit, python, go } = parts;
  const language = file.name.endsWith(".py") ? [python(), indentUnit.of("    ")] : [];
  const changed = EditorView.updateListener.of((update) => {
    if (!update.docChanged || isSwitching) return;
    file.text = update.state.doc.toString();
    setChanged(true);
  });
  return EditorState.create({
    doc: file.text ?? "",
    extensions: [
      lineNumbers(), history(), drawSelection(), indentOnInput(), bracketMatching(), theme(parts), changed,
      // Tab leaves the editor, for people who use the keyboard alone. Ctrl-] indents.
      keymap.of([...defaultKeymap, ...historyKeymap]),
      file.name.endsWith(".go") ? [go(), indentUnit.of("\t")] : language,
      EditorState.readOnly.of(Boolean(file.bytes)),
      EditorView.contentAttributes.of({ "aria-label": `Text of ${file.name}` }),
    ],
  });
}

function setChanged(isChanged) {
  work.isChanged = isChanged;
  if (isChanged) work.edits += 1;
  $("code-changed").textContent = isChanged ? "changed, and not deployed yet" : "";
}

function openFile(file) {
  work.open = file;
  isSwitching = true;
  view.setState(stateOf(file));
  isSwitching = false;
  $("file-facts").textContent = file.bytes ? `${bytes(file.bytes.length)}, kept as the file is: no text to edit` : "";
  drawFiles();
}

function drawFiles() {
  $("files").replaceChildren(...work.files.map((file) => {
    const opener = button(file.name, () => openFile(file));
    if (file === work.open) opener.setAttribute("aria-current", "true");
    const made = element("li");
    made.append(opener);
    return made;
  }));
  $("file-remove").disabled = work.files.length < 2;
}

/** Whether the text that is being edited may go: the text is deployed, or the person says so. */
async function mayGo() {
  return !work.isChanged || confirm("The changed text is not deployed, and would be lost.", "Go on", "Keep the text");
}

/** Shows files for editing, in a view. */
async function edit(place, files, about) {
  await load();
  if (!view) makeView();
  Object.assign(work, { files, open: null, ...about });
  setChanged(false);
  place.append($("workspace"));
  $("workspace").hidden = false;
  $("code-deploy").disabled = about.id === null;
  openFile(files[0]);
}

/** The first file that a person wants to see. */
function first(files) {
  const at = files.findIndex((file) => /^(main|handler|app|index|lambda_function)\.(py|go)$/.test(file.name));
  return at > 0 ? [files[at], ...files.toSpliced(at, 1)] : files;
}

async function editVersion(id, number) {
  if (!await mayGo()) {
    // The text belongs to another place: the person goes back there.
    if (work.id !== id) location.hash = work.id ? `#/functions/${work.id}/code` : "#/new";
    return;
  }
  const zip = await askBytes(`/api/functions/${id}/versions/${number}/code`);
  const { filesOf } = await load();
  const files = filesOf(zip);
  if (current !== id) return;
  await edit($("code-place"), first(files), { id, version: number });
  $("code-of").textContent = `The files of version ${number}`;
}

/** Shows the code and the versions of a function. */
export async function readCode(id) {
  const isOther = current !== id;
  current = id;
  if (isOther) $("build-log").hidden = true;
  // The files of another function must not become this function's.
  if (work.id !== id) {
    $("workspace").hidden = true;
    $("code-deploy").disabled = true;
    $("code-of").textContent = "";
  }
  const wanted = live.functions.get(id)?.version;
  const isThere = work.id === id && $("workspace").parentElement === $("code-place");
  if (isThere) $("workspace").hidden = false;
  const isKept = isThere && (work.isChanged || work.version === wanted);
  await Promise.all([readVersions(id), isKept ? null : editVersion(id, wanted)]);
}

async function readVersions(id) {
  const versions = await ask("GET", `/api/functions/${id}/versions`);
  if (current !== id) return;
  $("versions").replaceChildren(...versions.map((one) => {
    const item = element("li");
    const number = `${one.version}${one.isCurrent ? ", which runs" : ""}`;
    item.append(element("span", [number, one.language, time(one.createdAt), bytes(one.zipBytes)].join(" · ")));
    item.append(button(`Edit version ${one.version}`, () => editVersion(id, one.version)));
    item.append(button(`Log of version ${one.version}`, () => showLog(id, one.version)));
    if (!one.isCurrent) {
      item.append(button(`Run version ${one.version} again`, async () => {
        const changed = await ask("POST", `/api/functions/${id}/rollback?version=${one.version}`);
        if (current !== id) return;
        $("update-status").textContent = changed.message;
        await readVersions(id);
      }));
    }
    return item;
  }));
}

async function showLog(id, number) {
  const version = await ask("GET", `/api/functions/${id}/versions/${number}`);
  if (current !== id) return;
  $("build-log").hidden = false;
  $("build-log").textContent = `Build of version ${number}\n${version.buildLog || "The build has said nothing."}`;
}

/** Sends a zip as the next version of the function that the page shows. */
async function update(zip, name) {
  const id = current;
  const form = new FormData();
  form.append("code", zip, name);
  const draw = drawn("update-progress", "update-status", () => current === id);
  const updated = await upload("PUT", `/api/functions/${id}`, form, draw);
  if (current !== id) return updated;
  $("update").reset();
  $("update-status").textContent = [updated.message, ...(updated.warnings ?? [])].join(" · ");
  await readVersions(id);
  return updated;
}

async function deployWork() {
  const { zipOf } = await load();
  const { id, edits } = work;
  if (id === null || id !== current) throw new Problem(0, { detail: "the files are not read yet; try again" });
  const updated = await update(zipOf(work.files), "function.zip");
  if (work.id !== id) return;
  work.version = updated.version;
  // What was typed meanwhile is not deployed.
  if (work.edits === edits) setChanged(false);
  if (current === id) $("code-of").textContent = `The files of version ${updated.version}`;
}

/** Shows the view in which a person writes a new function. */
export async function showNew() {
  current = null;
  if ($("starter").options.length === 0) {
    const starters = await ask("GET", "/console/starters.json");
    $("starter").replaceChildren(...starters.map((one, at) => {
      const option = element("option", `${one.language === "golang" ? "Go" : "Python"}: ${one.about}`);
      option.value = String(at);
      return option;
    }));
    $("starter").addEventListener("change", () => attempt($("starter"), () => begun(starters)));
    await begun(starters);
  } else if ($("workspace").parentElement !== $("new-place")) {
    $("starter").dispatchEvent(new Event("change"));
  }
}

async function begun(starters) {
  if (!await mayGo()) {
    if (work.id) location.hash = `#/functions/${work.id}/code`;
    return;
  }
  const starter = starters[Number($("starter").value)];
  const files = starter.files.map((file) => ({ ...file }));
  await edit($("new-place"), files, { id: null, version: null });
  if (starter.language === "python" && !files.some((file) => file.name === "requirements.txt")) {
    work.files.push({ name: "requirements.txt", text: "" });
    drawFiles();
  }
}

async function deployNew() {
  const { zipOf } = await load();
  const name = $("new-name").value.trim();
  const { edits } = work;
  const form = new FormData();
  const isEmpty = (file) => file.name === "requirements.txt" && !file.text?.trim();
  form.append("code", zipOf(work.files.filter((file) => !isEmpty(file))), `${name}.zip`);
  form.append("name", name);
  const deployed = await upload("POST", "/api/submit", form, drawn("new-progress", "new-status", () => true));
  $("new-status").textContent = [deployed.message, ...(deployed.warnings ?? [])].join(" · ");
  if (work.id !== null || work.edits !== edits) return;
  setChanged(false);
  $("write").reset();
  await known(deployed.functionId);
  if (location.hash === "#/new") location.hash = `#/functions/${deployed.functionId}/code`;
}

function addFile() {
  const name = $("file-name").value.trim();
  if (!name) return;
  if (work.files.some((file) => file.name === name)) {
    throw new Problem(0, { detail: `there is a file ${name} already` });
  }
  const file = { name, text: "" };
  work.files.push(file);
  $("file-name").value = "";
  setChanged(true);
  openFile(file);
}

async function removeFile() {
  const { open } = work;
  if (!await confirm(`Remove ${open.name} from the next version?`, "Remove the file", "Keep the file")) return;
  work.files = work.files.filter((file) => file !== open);
  setChanged(true);
  openFile(work.files[0]);
}

export function begin() {
  addEventListener("beforeunload", (event) => { if (work.isChanged) event.preventDefault(); });
  onSubmit("write", "new-deploy", deployNew);
  onSubmit("file-form", "file-add", addFile);
  $("file-remove").addEventListener("click", () => attempt($("file-remove"), removeFile));
  $("code-deploy").addEventListener("click", () => attempt($("code-deploy"), deployWork));
  onSubmit("update", "update-deploy", () => update($("update-zip").files[0], $("update-zip").files[0].name));
}
