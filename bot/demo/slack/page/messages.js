// One message, and lists of messages.

import { avatar, div, h, icon, iconButton, patch, span } from "./dom.js";
import { contentOf, paintBlocks, renderFile } from "./blocks.js";
import { clock, dayLabel } from "./mrkdwn.js";

const GROUP_WINDOW_S = 300; // Slack folds messages of one author together for five minutes

function dateOf(ts) {
  return new Date(Number(ts) * 1000);
}

/** The time of a message; short leaves AM and PM out, for the narrow gutter. */
function stamp(message, short = false) {
  const date = dateOf(message.ts);
  const said = short ? clock(date).replace(/[^\d:.]+$/, "") : clock(date);
  return h("time", { class: "message__time", datetime: date.toISOString(), title: date.toLocaleString() }, said);
}

/** Messages with what the list needs to know: whether it continues the one above, and the day dividers between. */
export function arrange(messages) {
  const rows = [];
  let last = null;
  for (const message of messages) {
    const day = dateOf(message.ts).toDateString();
    if (!last || dateOf(last.ts).toDateString() !== day) {
      rows.push({ kind: "day", key: `day-${day}`, label: dayLabel(dateOf(message.ts)) });
      last = null;
    }
    const near = last && last.user === message.user && message.ts - last.ts < GROUP_WINDOW_S;
    const joined = near && !message.ephemeral && !last.ephemeral && !last.reply_count;
    rows.push({
      kind: "message",
      key: `${message.ts}${message.ephemeral ? "-e" : ""}`,
      message,
      compact: Boolean(joined),
    });
    last = message;
  }
  return rows;
}

function repliesLink(message, replies, ctx) {
  if (replies.length === 0) return null;
  const authors = [...new Set(replies.map((reply) => reply.user))].slice(0, 4);
  const newest = dateOf(replies.at(-1).ts);
  const label = `${replies.length} ${replies.length === 1 ? "reply" : "replies"}`;
  return h("button", {
    type: "button", class: "replies", "data-testid": "open-thread",
    "data-unread": ctx.unreadReplies(message, replies) ? "true" : null,
    on: { click: () => ctx.openThread(message.ts) },
  }, authors.map((id) => avatar(ctx.user(id), 24)), span("replies__count", label),
  span("replies__last", `Last reply ${dayLabel(newest).toLowerCase()} at ${clock(newest)}`),
  span("replies__view", "View thread"));
}

function toolbar(message, replies, ctx) {
  if (!ctx.openThread || message.ephemeral) return null;
  return h("div", { class: "message__toolbar" },
    iconButton("thread", "Reply in thread", () => ctx.openThread(message.ts), { testid: replies.length ? "reply-in-thread" : "open-thread" }));
}

function byline(message, user) {
  return h("div", { class: "message__meta" },
    span("message__author", user?.real_name ?? message.username ?? message.user ?? "unknown"),
    message.bot_id ? span("badge", "APP") : null, stamp(message));
}

/** Build a message, or bring the one painted before up to date block by block. */
function buildMessage({ message, compact }, old, ctx) {
  const user = ctx.user(message.user);
  const replies = ctx.repliesOf?.(message) ?? [];
  let node = old;
  if (!node) {
    const hooks = { "data-testid": ctx.testid?.(message) ?? "message", "data-ts": message.ts, "data-user": message.user };
    node = h("article", { class: "message", tabindex: "-1", ...hooks },
      div("message__gutter"),
      h("div", { class: "message__content" },
        div("message__private"), div("message__head"), div("message__body"), div("message__after"),
        h("div", { class: "message__warning", role: "alert", "data-testid": "message-warning" }), div("message__replies")),
      div("message__tools"));
  }
  const at = (name) => node.querySelector(`.message__${name}`);
  const warn = (text) => at("warning").replaceChildren(...(text ? [`⚠ ${text}`] : []));
  const messageCtx = { ...ctx, act: (payload) => ctx.actOn(message, payload), warn };
  node.classList.toggle("message--compact", compact);
  node.classList.toggle("message--ephemeral", Boolean(message.ephemeral));
  node.setAttribute("aria-label", `${user?.real_name ?? "unknown"}, ${clock(dateOf(message.ts))}`);
  at("gutter").replaceChildren(compact ? stamp(message, true) : avatar(user));
  at("head").replaceChildren(...(compact ? [] : [byline(message, user)]));
  const dismiss = () => h("button", { type: "button", class: "linkbutton", on: { click: () => ctx.dismiss(message) } }, "Dismiss message");
  at("private").replaceChildren(...(message.ephemeral ? [icon("eye"), "Only visible to you", dismiss()] : []));
  paintBlocks(at("body"), contentOf(message), messageCtx);
  const attachments = (message.attachments ?? []).map((attachment) => {
    const inside = div("attachment");
    if (/^#?[0-9a-f]{6}$/i.test(attachment.color ?? "")) inside.style.borderColor = `#${attachment.color.replace("#", "")}`;
    paintBlocks(inside, contentOf({ ...attachment, text: attachment.text ?? attachment.fallback }), messageCtx);
    return inside;
  });
  at("after").replaceChildren(
    ...attachments,
    ...(message.edited ? [span("message__edited", "(edited)")] : []),
    ...(message.files ?? []).map(renderFile),
  );
  at("replies").replaceChildren(...[repliesLink(message, replies, ctx)].filter(Boolean));
  at("tools").replaceChildren(...[toolbar(message, replies, ctx)].filter(Boolean));
  return node;
}

/** Paint rows (from arrange) into container; only what changed is touched. */
export function paintMessages(container, rows, ctx) {
  patch(container, rows, {
    key: (row) => row.key,
    signature: (row) => {
      if (row.kind !== "message") return row.label;
      const replies = ctx.repliesOf?.(row.message) ?? [];
      return JSON.stringify([
        row.message,
        row.compact,
        replies.length,
        replies.at(-1)?.ts,
        ctx.unreadReplies?.(row.message, replies),
      ]);
    },
    build: (row, old) => {
      if (row.kind === "message") return buildMessage(row, old, ctx);
      return h(
        "div",
        { class: row.kind === "day" ? "daymark" : "replycount", role: "separator" },
        h("span", null, row.label),
      );
    },
  });
}
