// Calls of the service, with the user's key where there is one.

import { keep, kept } from "./dom.js";

const NAME = "acclimate-key";
let current = kept("sessionStorage", NAME);

export const key = {
  get: () => current,
  /** Use a key until the tab is closed; null forgets it. */
  set(value) {
    current = value;
    keep("sessionStorage", NAME, value);
  },
};

/** A request that the service refused, or that did not reach it (status 0). */
export class Refused extends Error {
  constructor(status, error, retryAfterS = 0) {
    super(error.message);
    this.status = status;
    this.field = error.field ?? null;
    this.fix = error.fix ?? null;
    this.retryAfterS = retryAfterS;
  }
}

/**
 * Call a route and read its JSON.
 * @param {AbortSignal} [signal] that gives the call up
 * @throws {Refused}
 */
export async function call(method, path, body = undefined, signal = undefined) {
  const reply = await send(method, path, body, signal);
  return reply.json();
}

/**
 * Fetch a file; the browser keeps it, as the service allows.
 * @returns {Promise<Blob>}
 * @throws {Refused}
 */
export async function fetchBlob(path, signal) {
  const reply = await send("GET", path, undefined, signal, "default");
  return reply.blob();
}

/**
 * Call a route that answers with server-sent events, and give the JSON of each `data:` line.
 * @throws {Refused}
 */
export async function* events(path, body, signal) {
  const reply = await send("POST", path, body, signal);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    rest += value;
    const lines = rest.split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:") && line.slice(5).trim() !== "[DONE]") yield JSON.parse(line.slice(5));
    }
  }
}

async function send(method, path, body, signal, cache = "no-store") {
  const headers = { accept: cache === "no-store" ? "application/json" : "image/*, application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (current) headers.authorization = `Bearer ${current}`;
  let reply;
  try {
    reply = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal, cache });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { message: String(error.message ?? error) });
  }
  if (reply.ok) return reply;
  const said = await reply.json().catch(() => null);
  const error = said?.error ?? { message: `HTTP ${reply.status}` };
  throw new Refused(reply.status, error, Number(reply.headers.get("retry-after") ?? 0));
}
