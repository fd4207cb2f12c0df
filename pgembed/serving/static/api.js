// Requests to this server alone, and whether it and its database answer.

const listeners = new Set();
let trouble = null;

export class ApiError extends Error {
  constructor(status, body) {
    super(body.message);
    this.status = status;
    this.kind = body.error;
    this.remedy = body.remedy;
  }
}

/** Call `act(error or null)` whenever the database goes away or comes back. */
export function onTrouble(act) {
  listeners.add(act);
}

function tell(error) {
  if ((error === null) === (trouble === null) && error?.message === trouble?.message) return;
  trouble = error;
  for (const act of listeners) act(error);
}

/** Return the JSON at `path`; parameters that are empty are left out. Raises ApiError. */
export async function ask(path, parameters = {}, { method = "GET", body, signal } = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const url = given.length ? `${path}?${new URLSearchParams(given)}` : path;
  let answer;
  try {
    answer = await fetch(url, {
      method,
      signal,
      headers: method === "GET" ? {} : { "Content-Type": "application/json", "X-Pgembed": "1" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const away = new ApiError(0, { error: "Away", message: "The server does not answer.", remedy: "Is `pgembed serve` running? This page tries again by itself." });
    tell(away);
    throw away;
  }
  if (answer.status === 401) {
    location.assign("/login");
  }
  const found = await answer.json().catch(() => ({ error: "HttpError", message: `The server answered ${answer.status}.` }));
  if (answer.ok) {
    tell(null);
    return found;
  }
  const error = new ApiError(answer.status, found);
  if (answer.status === 503 && error.kind !== "Busy") tell(error);
  throw error;
}
