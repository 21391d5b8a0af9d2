// Where the reader is: the address' hash. "#home", "#C0INCIDENTS" or "#C0INCIDENTS/1712345678.000100" (an open thread).

export function parseRoute(hash, state) {
  const [page, thread] = decodeURIComponent(hash.replace(/^#/, "")).split("/");
  if (page === "home") return { page: "home", channel: null, thread: null };
  const { channels } = state;
  const channel = channels.find((each) => each.id === page) ?? channels.find((each) => each.is_member) ?? channels[0];
  return { page: "channel", channel: channel.id, thread: channel.id === page ? (thread ?? null) : null };
}

/** The hash for a link to a message of this workspace (…/archives/C…/p1712345678000100), or null for any other link. */
export function permalink(href) {
  const url = new URL(href, location.origin);
  const found = /^\/archives\/(\w+)\/p(\d+)(\d{6})$/.exec(url.pathname);
  if (!found || url.origin !== location.origin) return null;
  return `#${found[1]}/${url.searchParams.get("thread_ts") ?? `${found[2]}.${found[3]}`}`;
}

const STORE = "local-slack-read";

/** Marks of what each person has read, kept over reloads: channels and threads by the newest ts seen. */
export function createReadMarks() {
  let marks = {};
  try {
    marks = JSON.parse(localStorage.getItem(STORE)) ?? {};
  } catch {
    marks = {}; // storage is off or spoilt: everything counts as unread once
  }
  return {
    get: (me, place) => marks[`${me}/${place}`],
    set(me, place, ts) {
      const key = `${me}/${place}`;
      if (!ts || marks[key] >= ts) return;
      marks[key] = ts;
      try {
        localStorage.setItem(STORE, JSON.stringify(marks));
      } catch {
        // storage is full or forbidden: the marks last as long as the page
      }
    },
  };
}
