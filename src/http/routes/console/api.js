// The console's requests to the API: JSON, streams of events, and uploads, with the token when there is a token.

/** A problem in the API's own words. */
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? `the service answered ${status}`);
    this.log = body?.buildLog;
    this.status = status;
  }
}

/** Sends a request. A service that does not answer is a problem, too. */
async function send(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(0, { detail: "the service did not answer" });
  }
}

export function headers(more = {}) {
  const token = sessionStorage.getItem("token");
  return token ? { ...more, authorization: `Bearer ${token}` } : more;
}

/** Keeps a number as the number was written: JavaScript's numbers have 53 bits, and no difference between 1 and 1.0. */
function exact(_, value, { source } = {}) {
  return typeof value === "number" && source !== String(value) && JSON.rawJSON ? JSON.rawJSON(source) : value;
}

/** Reads what the console sends again: no number in the answer changes on the way. */
export async function askExactly(path) {
  return JSON.parse(new TextDecoder().decode(await askBytes(path)), exact);
}

/** Sends a request, and asks the person for a missing token. A failed execution is a result. A problem is thrown. */
export async function ask(method, path, body, more = {}) {
  const all = body === undefined ? more : { ...more, "content-type": "application/json" };
  const response = await send(path, { method, headers: headers(all), body });
  const answer = await response.json().catch(() => null);
  if (response.status === 401) {
    await signIn();
    return ask(method, path, body, more);
  }
  if (response.headers.get("content-type")?.includes("problem+json")) throw new Problem(response.status, answer);
  return answer;
}

/** The bytes of an answer. */
export async function askBytes(path) {
  const response = await send(path, { headers: headers() });
  if (response.status === 401) {
    await signIn();
    return askBytes(path);
  }
  if (!response.ok) throw new Problem(response.status, await response.json().catch(() => null));
  return response.arrayBuffer();
}

/** The events of a part of a stream, and the rest of the part. */
function events(text) {
  const blocks = text.split("\n\n");
  const rest = blocks.pop();
  const parsed = blocks.map((block) => {
    const lines = (name) => block.split("\n").filter((line) => line.startsWith(`${name}: `));
    const field = (name) => lines(name).map((line) => line.slice(name.length + 2)).join("\n");
    return { name: field("event"), data: field("data") };
  });
  return [parsed.filter((one) => one.name), rest];
}

/** Hands each event of a stream to `hear` when the event comes. */
export async function follow(path, hear, signal) {
  const response = await send(path, { headers: headers({ accept: "text/event-stream" }), signal });
  if (response.status === 401) {
    await signIn();
    return follow(path, hear, signal);
  }
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
    const dialog = document.getElementById("sign-in");
    const token = document.getElementById("token");
    dialog.addEventListener("close", () => {
      sessionStorage.setItem("token", token.value);
      token.value = "";
      signingIn = null;
      resolve();
    }, { once: true });
    // Without the token the page has nothing to show.
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
  });
  return signingIn;
}

/** Sends a zip, and calls `draw` with the progress: a text, and a number up to 1 when the number is known. */
export function upload(method, path, form, draw) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, path);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.setRequestHeader("accept", "text/event-stream");
    draw("uploading", 0);
    request.upload.addEventListener("progress", (event) => {
      const value = event.loaded / event.total;
      draw(`uploading, ${Math.round(value * 100)} %`, value);
    });
    request.upload.addEventListener("load", () => draw("building …"));
    // The answer is a stream of events, and `responseText` has the part that has come so far.
    const heard = () => events(request.responseText)[0];
    request.addEventListener("progress", () => {
      const log = heard().filter((one) => one.name === "log");
      if (log.length) draw(`building … ${log.at(-1).data}`);
    });
    request.addEventListener("error", () => {
      draw("", 0);
      reject(new Problem(0, { detail: "the service did not answer" }));
    });
    request.addEventListener("load", () => {
      // Before the caller shows what came of it, in the same place.
      draw("", 0);
      if (request.status === 401) return resolve(signIn().then(() => upload(method, path, form, draw)));
      let body = null;
      const isEnd = (one) => one.name === "deployed" || one.name === "problem";
      const end = request.status === 200 ? heard().findLast(isEnd) : undefined;
      try { body = JSON.parse(end ? end.data : request.responseText); } catch { /* The answer is not the service's. */ }
      end?.name === "deployed" ? resolve(body) : reject(new Problem(body?.status ?? request.status, body));
    });
    request.send(form);
  });
}
