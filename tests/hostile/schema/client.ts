// A client whose types are made from the service's own description. The compiler has checked each call.
// Arguments: URL ZIP.

import createClient from "openapi-fetch";
import type { operations, paths } from "./api.js";

declare const process: { argv: string[] };

const [url, zip] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url });

function check(holds: boolean, what: unknown): asserts holds {
  if (!holds) throw new Error(JSON.stringify(what));
}

const live = await client.GET("/health/live");
check(live.data?.status === "ok", live);

// A file has no type of its own in a description. The form has the real body.
const form = new FormData();
form.append("name", "typed");
form.append("code", new Blob([Uint8Array.from(atob(zip!), (character) => character.charCodeAt(0))]), "typed.zip");
const submitted = await client.POST("/api/submit", { body: form as never, bodySerializer: (body) => body });
check(typeof submitted.data === "object" && submitted.error === undefined, submitted.error);
const { functionId } = submitted.data as { functionId: string };

const listed = await client.GET("/api/functions");
check(listed.data?.some((found) => found.functionId === functionId && found.name === "typed") === true, listed);

const shown = await client.GET("/api/functions/{id}", { params: { path: { id: functionId } } });
const language: string | undefined = shown.data?.language;
check(language === "python" && shown.data?.lastExecuted === undefined, shown);

const executed = await client.POST("/api/execute", { body: { functionId, input: { name: "types" } } });
check(executed.data !== undefined && "output" in executed.data, executed);
check(executed.data.output === "Hello, types\n" && executed.data.statusCode === 200, executed);

const byName = await client.POST("/api/functions/{name-or-id}/invoke", { params: { path: { "name-or-id": "typed" } } });
check(byName.data !== undefined && "output" in byName.data && byName.data.output === "Hello, World\n", byName);

const params = { path: { id: functionId } };
const configured = await client.PATCH("/api/functions/{id}", { params, body: { memory: "64MB", environment: { NAME: "set" } } });
check(configured.data?.settings.memory === 64_000_000 && configured.data.name === "typed", configured);

const history = await client.GET("/api/functions/{id}/invocations", { params: { ...params, query: { outcome: "ok", limit: 1 } } });
check(history.data?.invocations.length === 1 && history.data.nextCursor !== undefined, history);

const missing = await client.GET("/api/functions/{id}", { params: { path: { id: "123e4567-e89b-42d3-a456-426614174000" } } });
check(missing.response.status === 404 && missing.error?.code === "function_not_found", missing);

// Operations go by their own names.
type Rollback = operations["rollBackFunction"]["responses"][200]["content"]["application/json"];
const refused = await client.POST("/api/functions/{id}/rollback", { params });
const never: Rollback | undefined = refused.data;
check(never === undefined && refused.error?.code === "no_former_version", refused);

const deleted = await client.DELETE("/api/functions/{id}", { params });
check(deleted.data?.message.includes(functionId) === true, deleted);
console.log("all calls were answered as described");
