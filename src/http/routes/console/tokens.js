// Tokens of clients that may do less than the holder of API_TOKEN.

import { ask } from "/console/api.js";
import { $, button, confirm, item, onSubmit, time } from "/console/dom.js";
import { live } from "/console/live.js";

/** Shows the tokens, to a person who may see tokens. */
export async function readTokens() {
  const tokens = await ask("GET", "/api/tokens");
  $("no-tokens").hidden = tokens.length > 0;
  $("tokens").replaceChildren(...tokens.map((one) => {
    const last = one.lastUsedAt ? `last used ${time(one.lastUsedAt)}` : "never used";
    const end = one.expiresAt ? `expires ${time(one.expiresAt)}` : null;
    const names = one.functions?.map((id) => live.functions.get(id)?.name ?? id);
    const only = names ? `for ${names.join(", ")}` : null;
    const remove = button(`Delete token ${one.name}`, async () => {
      const text = `Delete the token ${one.name}? Its clients are refused from then on.`;
      if (!await confirm(text, "Delete the token", "Keep the token")) return;
      await ask("DELETE", `/api/tokens/${encodeURIComponent(one.name)}`);
      await readTokens();
    });
    return item([one.name, one.scopes.join(", "), only, last, end].filter(Boolean).join(" · "), remove);
  }));
}

async function create() {
  const scopes = ["read", "invoke", "deploy", "admin"].filter((scope) => $(`token-${scope}`).checked);
  const body = { name: $("token-name").value.trim(), scopes };
  const names = $("token-functions").value.split(/[\s,]+/).filter(Boolean);
  if (names.length) {
    const all = [...live.functions.values()];
    body.functions = names.flatMap((name) => {
      const found = all.filter((one) => one.name === name || one.functionId === name).map((one) => one.functionId);
      return found.length ? found : [name];
    });
  }
  const days = Number($("token-days").value);
  if (days) body.expiresAt = Math.floor(Date.now() / 1000) + days * 86400;
  const made = await ask("POST", "/api/tokens", JSON.stringify(body));
  $("token-form").reset();
  $("token-status").textContent = `The token, which is not shown again: ${made.token}`;
  await readTokens();
}

export function begin() {
  onSubmit("token-form", "token-create", create);
}
