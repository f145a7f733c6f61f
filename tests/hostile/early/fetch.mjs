// Sends three requests that are refused before their bodies are read, by Node's own fetch. Prints each result.
// Arguments: URL TOKEN TIMES.
const [url, token, times] = process.argv.slice(2);

function form(size, name) {
  const form = new FormData();
  if (name !== undefined) form.append("name", name);
  form.append("code", new Blob([new Uint8Array(size)]), "a.zip");
  return form;
}

async function send(form, token) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  try {
    const response = await fetch(`${url}/api/submit`, { method: "POST", body: form, headers });
    const problem = await response.json();
    return `${response.status} ${problem.code}`;
  } catch (error) {
    return `${error.message}: ${error.cause?.message ?? "no cause"}`;
  }
}

for (let i = 0; i < times; i++) {
  console.log(await send(form(12_000_000), token));
  console.log(await send(form(9_900_000, "a/b"), token));
  console.log(await send(form(9_900_000), undefined));
}
