// What the page asks the server. Addresses are relative, so that it works behind a proxy's prefix, too.

/** A failure in words: `kind` is the key of its sentence, `details` are the server's own. */
export class ApiError extends Error {
  constructor(kind, details = [], { status = 0, retryAfter = null } = {}) {
    super(details.join(" ") || kind);
    this.kind = kind;
    this.details = details;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const KINDS = {
  400: "errorRequest", 401: "errorToken", 403: "errorToken", 404: "errorModel", 413: "errorLarge",
  429: "errorBusy", 503: "errorUnavailable", 504: "errorTime",
};
const CODES = {
  context_length_exceeded: "errorLong", invalid_api_key: "errorToken", model_not_found: "errorModel",
  overloaded: "errorBusy", unavailable: "errorUnavailable", time_limit: "errorTime",
};

/** "ready", "loading", "draining", or "gone". */
export async function readiness() {
  try {
    const response = await fetch("ready", { cache: "no-store" });
    return response.ok ? "ready" : (await response.json()).status;
  } catch {
    return "gone";
  }
}

/** The names of what is served. */
export async function modelNames(token) {
  const response = await ask("v1/models", { headers: headers(token) });
  const names = (await response.json()).data.map((model) => model.id);
  return names.filter((name) => typeof name === "string");
}

/** Yield the chunks of a streamed answer; `signal` ends it, and with it the model's work. */
export async function* streamChat(body, token, signal) {
  const response = await ask("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers(token) },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const data of events(response.body, signal)) {
    if (data === "[DONE]") return;
    const chunk = parsed(data);
    if (chunk.error) throw failure(0, chunk.error, null);
    yield chunk;
  }
  throw new ApiError("errorBroken");
}

function headers(token) {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function ask(address, options) {
  let response;
  try {
    response = await fetch(address, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("errorNetwork", [error.message]);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw failure(response.status, body.error, response.headers.get("Retry-After"));
}

function failure(status, error, retryAfter) {
  const { message, code, faults } = error && typeof error === "object" ? error : {};
  const kind = CODES[code] || KINDS[status] || "errorServer";
  // Several faults are in the message as well; each on a line of its own is easier to read.
  const details = Array.isArray(faults)
    ? faults.map((fault) => (fault.param ? `${fault.param}: ${fault.message}` : String(fault.message)))
    : message ? [String(message)] : status ? [`HTTP ${status}`] : [];
  return new ApiError(kind, details, { status, retryAfter: Number(retryAfter) || null });
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ApiError("errorBroken", [data.slice(0, 200)]);
  }
}

/** The data of each server-sent event, as the WHATWG's HTML standard (9.2.6) cuts them. */
async function* events(stream, signal) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
    }
  } catch (error) {
    if (error instanceof ApiError || signal.aborted) throw error;
    throw new ApiError("errorBroken", [error.message]);
  } finally {
    reader.cancel().catch(() => {});
  }
}
