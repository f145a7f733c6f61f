// What all views use: elements, values as people read them, and the work of buttons.

export const $ = (id) => document.getElementById(id);

export function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** An item of a list: a text, and buttons. */
export function item(text, ...buttons) {
  const made = element("li");
  made.append(element("span", text), ...buttons);
  return made;
}

export function button(text, work) {
  const made = element("button", text);
  made.type = "button";
  made.addEventListener("click", () => attempt(made, work));
  return made;
}

export function link(text, hash) {
  const made = element("a", text);
  made.href = hash;
  return made;
}

export const isMissing = (value) => value === undefined || value === null;
export const time = (seconds) => (isMissing(seconds) ? "–" : new Date(seconds * 1000).toLocaleString());
export const ms = (value) => (isMissing(value) ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);
export function bytes(value) {
  if (!value) return "–";
  if (value < 1e6) return `${(value / 1e3).toFixed(1)} kB`;
  return value < 1e9 ? `${(value / 1e6).toFixed(1)} MB` : `${(value / 1e9).toFixed(1)} GB`;
}

export function show(problem) {
  $("problem-text").textContent = problem.message;
  $("problem-log").textContent = problem.log ?? "";
  $("problem-log").hidden = !problem.log;
  $("problem").hidden = false;
}

/** Does the work of a button, and shows the problem when the work fails. */
export async function attempt(control, work) {
  control.disabled = true;
  try {
    $("problem").hidden = true;
    await work();
  } catch (error) {
    show(error);
  } finally {
    control.disabled = false;
  }
}

/** Does work when a form is sent, with the button that stands for the form. */
export function onSubmit(form, control, work) {
  $(form).addEventListener("submit", (event) => {
    event.preventDefault();
    attempt($(control), work);
  });
}

/** A function that shows an upload's progress in two elements, while `isShown` is true. */
export function drawn(progress, status, isShown) {
  return (text, value) => {
    if (!isShown()) return;
    $(status).textContent = text;
    $(progress).hidden = !text;
    if (value === undefined) $(progress).removeAttribute("value");
    else $(progress).value = value;
  };
}

/** Asks a person, and returns whether the answer is yes. */
export function confirm(text, yes, no) {
  const dialog = $("confirm");
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = yes;
  $("confirm-no").textContent = no;
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
