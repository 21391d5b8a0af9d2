// Slack's mrkdwn to DOM nodes: https://api.slack.com/reference/surfaces/formatting

import { div, h, safeUrl, span } from "./dom.js";
import { emojiOf, expandCodes, withEmoji } from "./emoji.js";
import { permalink } from "./route.js";

const MARKS = { "*": "strong", _: "em", "~": "s" };
const LINKED = /<((?:https?|mailto):[^>|]*)(?:\|[^>]*)?>/g; // Slack links addresses even inside code
const WORD = /[\p{L}\p{N}_]/u;

/** Slack escapes exactly these three; the ampersand last, so that &amp;lt; stays a written-out entity. */
function decode(text) {
  return text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
}

export function clock(date) {
  return date.toLocaleTimeString([], { hour: "numeric", minute: "2-digit" });
}

/** "Today", "Yesterday" or null. */
function nearDay(date) {
  const start = (of) => new Date(of.getFullYear(), of.getMonth(), of.getDate());
  const days = Math.round((start(new Date()) - start(date)) / 86_400_000);
  return ["Today", "Yesterday"][days] ?? null;
}

const DAY_FORMATS = {
  date_num: { year: "numeric", month: "2-digit", day: "2-digit" },
  date: { year: "numeric", month: "long", day: "numeric" },
  date_short: { year: "numeric", month: "short", day: "numeric" },
  date_long: { weekday: "long", year: "numeric", month: "long", day: "numeric" },
};

/** A Slack date token such as "{date_short_pretty} at {time}" filled in for the reader's own time zone. */
export function formatDate(seconds, format) {
  const date = new Date(seconds * 1000);
  return format.replace(/\{(\w+)\}/g, (whole, token) => {
    if (token === "time") return clock(date);
    if (token === "time_secs") return date.toLocaleTimeString(
      [],
      { hour: "numeric", minute: "2-digit", second: "2-digit" },
    );
    const pretty = token.endsWith("_pretty");
    const options = DAY_FORMATS[pretty ? token.slice(0, -7) : token];
    if (!options) return whole;
    return (pretty && nearDay(date)) || date.toLocaleDateString([], options);
  });
}

/** The day as the list's dividers show it. */
export function dayLabel(date) {
  return nearDay(date) ?? date.toLocaleDateString([], { weekday: "long", month: "long", day: "numeric" });
}

export function mention(userId, ctx, label) {
  const user = ctx.user(userId);
  const mine = userId === ctx.me;
  return h(
    "span",
    { class: mine ? "mention mention--me" : "mention", "data-user-id": userId },
    `@${user?.real_name ?? label ?? userId}`,
  );
}

/** A link where url is an absolute http(s) address, else its label as plain text. */
export function link(url, label) {
  const href = /^https?:\/\//i.test(url) ? safeUrl(url) : null;
  const here = href && permalink(href);
  if (here) return h("a", { href: here }, label);
  return href ? h("a", { href, target: "_blank", rel: "noopener noreferrer" }, label) : h("span", null, label);
}

/** What stands between < and >: a mention, a channel, a date, a link. */
function entity(body, ctx) {
  const bar = body.indexOf("|");
  const head = bar < 0 ? body : body.slice(0, bar);
  const label = bar < 0 ? null : decode(body.slice(bar + 1));
  if (head.startsWith("@")) return mention(head.slice(1), ctx, label);
  if (head.startsWith("#")) {
    const channel = ctx.channel(head.slice(1));
    const name = `#${channel?.name ?? label ?? head.slice(1)}`;
    return channel ? h("a", { class: "mention", href: `#${channel.id}` }, name) : span("mention", name);
  }
  if (head.startsWith("!date^")) {
    const [, seconds, format, url] = head.split("^");
    const shown = Number.isFinite(Number(seconds)) ? formatDate(Number(seconds), decode(format ?? "")) : (label ?? "");
    const text = h("time", { title: label }, shown);
    return url ? link(decode(url), text) : text;
  }
  if (head.startsWith("!subteam^")) return span("mention", label ?? `@${head.slice(9)}`);
  if (head.startsWith("!")) return span("mention mention--me", label ?? `@${head.slice(1)}`);
  if (!/^[a-z][a-z0-9+.-]*:/i.test(head)) return h("span", null, `<${decode(body)}>`); // markup that is none of Slack's
  const shown = label === null ? [decode(head).replace(/^mailto:/, "")] : withEmoji(expandCodes(label));
  return link(decode(head), h("span", null, shown));
}

/** Index of the mark that closes the one at start, jumping over code and <entities>; -1 when there is none. */
function closing(text, start, mark) {
  for (let at = start + 1; at < text.length; at += 1) {
    const char = text[at];
    if (char === "\n") return -1;
    if (char === "<" || (char === "`" && mark !== "`")) {
      const end = text.indexOf(char === "<" ? ">" : "`", at + 1);
      if (end > 0) at = end;
    } else if (char === mark && at > start + 1 && !/\s/.test(text[at - 1]) && !WORD.test(text[at + 1] ?? " ")) {
      return at;
    }
  }
  return -1;
}

/** One run of text, without block structure, to nodes. */
function inline(text, ctx) {
  const nodes = [];
  let plain = "";
  const flush = () => {
    if (plain) nodes.push(...withEmoji(decode(plain)));
    plain = "";
  };
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at];
    if (char === "\n") {
      flush();
      nodes.push(h("br"));
      continue;
    }
    if (char === "<") {
      const end = text.indexOf(">", at);
      if (end > at + 1) {
        flush();
        nodes.push(entity(text.slice(at + 1, end), ctx));
        at = end;
        continue;
      }
    }
    if (char === "`") {
      const end = text.indexOf("`", at + 1);
      if (end > at + 1 && !text.slice(at, end).includes("\n")) {
        flush();
        nodes.push(h("code", null, decode(text.slice(at + 1, end).replace(LINKED, "$1"))));
        at = end;
        continue;
      }
    }
    if (char === ":") {
      const code = /^:([a-z0-9_+-]+):/.exec(text.slice(at, at + 60));
      const unicode = code && emojiOf(code[1]);
      if (unicode) {
        plain += unicode;
        at += code[0].length - 1;
        continue;
      }
    }
    if (MARKS[char] && !WORD.test(text[at - 1] ?? " ") && !/\s/.test(text[at + 1] ?? " ")) {
      const end = closing(text, at, char);
      if (end > 0) {
        flush();
        nodes.push(h(MARKS[char], null, inline(text.slice(at + 1, end), ctx)));
        at = end;
        continue;
      }
    }
    plain += char;
  }
  flush();
  return nodes;
}

const ITEM = /^(\s*)(?:([•◦▪*-])|(\d{1,3}[.)]))\s+(.*)$/;

/** Lines to paragraphs, quotes and lists. */
function structure(text, ctx) {
  const nodes = [];
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; ) {
    if (/^(&gt;|>)/.test(lines[at])) {
      const toEnd = /^(&gt;|>){3}/.test(lines[at]);
      const quoted = [];
      while (at < lines.length && (toEnd || /^(&gt;|>)/.test(lines[at]))) {
        quoted.push(lines[at].replace(toEnd ? /^((&gt;|>){3})? ?/ : /^(&gt;|>) ?/, ""));
        at += 1;
      }
      nodes.push(h("blockquote", null, inline(quoted.join("\n"), ctx)));
    } else if (ITEM.test(lines[at])) {
      const list = h("ul", { class: "items" });
      while (at < lines.length && ITEM.test(lines[at])) {
        const [, indent, bullet, number, body] = ITEM.exec(lines[at]);
        const item = h("li", { "data-bullet": bullet ? "•" : number }, inline(body, ctx));
        if (indent.length > 1) item.classList.add("items__deep");
        list.append(item);
        at += 1;
      }
      nodes.push(list);
    } else {
      const plain = [];
      while (at < lines.length && !ITEM.test(lines[at]) && !/^(&gt;|>)/.test(lines[at])) {
        plain.push(lines[at]);
        at += 1;
      }
      nodes.push(div("para", inline(plain.join("\n"), ctx)));
    }
  }
  return nodes;
}

/** mrkdwn to a list of nodes. ctx has me, user(id) and channel(id). */
export function mrkdwn(text, ctx) {
  const nodes = [];
  const parts = String(text).split("```");
  if (parts.length % 2 === 0) parts.push(parts.splice(-2).join("```")); // a fence that never closes is text
  for (const [index, part] of parts.entries()) {
    if (index % 2 === 1) nodes.push(h("pre", null, decode(part.replace(/^\n|\n$/g, "").replace(LINKED, "$1"))));
    else if (part.trim() !== "") nodes.push(...structure(index > 0 ? part.replace(/^\n/, "") : part, ctx));
  }
  return nodes;
}

/** A text object ({type, text, emoji?}) to nodes. */
export function textObject(object, ctx) {
  if (!object) return [];
  if (object.type === "mrkdwn") return mrkdwn(object.text ?? "", ctx);
  return withEmoji(object.emoji === false ? (object.text ?? "") : expandCodes(object.text ?? ""));
}
