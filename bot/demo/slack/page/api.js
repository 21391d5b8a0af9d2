// The page's side of the local Slack's /local endpoints.

const UNREACHABLE = "The local Slack cannot be reached.";

async function answerOf(response) {
  try {
    return await response.json();
  } catch {
    return {};
  }
}

/** POST json; always resolves to {ok, error?, errors?}, also when the server is gone. */
export async function post(path, body) {
  try {
    const response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const answer = await answerOf(response);
    return {
      ...answer,
      ok: response.ok && answer.ok !== false,
      error: answer.error ?? (response.ok ? undefined : `HTTP ${response.status}`),
    };
  } catch {
    return { ok: false, error: UNREACHABLE };
  }
}

/** GET json; {ok: true, data} or {ok: false, status, error}; status is 0 when the server is gone. */
export async function get(path) {
  try {
    const response = await fetch(path, { cache: "no-store" });
    const data = await answerOf(response);
    if (response.ok) return { ok: true, data };
    return { ok: false, status: response.status, error: data.error ?? `HTTP ${response.status}` };
  } catch {
    return { ok: false, status: 0, error: UNREACHABLE };
  }
}

const RETRY_MS = 1500;

/**
 * Listen for changes on behalf of one person. onChange runs at each event and at each (re)connection, since events
 * may have been missed between. The browser gives up after an HTTP error, so a closed source is opened again here.
 */
export function subscribe(me, { onChange, onOnline }) {
  let source = null;
  let timer = null;
  let stopped = false;
  function open() {
    source = new EventSource(`/local/events?as=${encodeURIComponent(me)}`);
    source.onopen = () => {
      onOnline(true);
      onChange();
    };
    source.onmessage = onChange;
    source.onerror = () => {
      onOnline(false);
      if (source.readyState === EventSource.CLOSED && !stopped) timer = setTimeout(open, RETRY_MS);
    };
  }
  open();
  return () => {
    stopped = true;
    clearTimeout(timer);
    source.close();
  };
}

/** Wrap an async job so that calls made while it runs lead to exactly one more run. */
export function coalesce(job) {
  let running = false;
  let again = false;
  return async function run() {
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      do {
        again = false;
        await job();
      } while (again);
    } finally {
      running = false;
    }
  };
}
