// The thread panel: the root message, its replies and its own composer.

import { createComposer } from "./composer.js";
import { h, iconButton, keepFocus, span } from "./dom.js";
import { arrange, paintMessages } from "./messages.js";
import { stickToBottom } from "./scroll.js";

/** Build the panel in container; returns {paint({root, replies, channel, ctx})}. Opening and closing it is the caller's. */
export function createThread(container, { source, sendMessage, onClose }) {
  const list = h("div", { class: "thread__list", "data-testid": "thread-list" });
  const scroller = h("div", { class: "thread__scroll", tabindex: "-1" }, list);
  const where = span("panel__where");
  const composer = createComposer({ testid: "thread-composer", allowCommands: false, source, sendMessage });
  const scroll = stickToBottom(scroller, list);
  let shown = null;
  container.replaceChildren(
    h("header", { class: "panel__head" },
      iconButton("back", "Back to the channel", onClose, { look: "panel__back" }),
      h("h2", null, "Thread"), where,
      iconButton("close", "Close the thread", onClose, { look: "panel__close", testid: "close-thread" })),
    scroller, composer.root);

  function paint({ root, replies, channel, ctx }) {
    const key = `${ctx.me}/${channel.id}/${root.ts}`;
    const fresh = key !== shown;
    if (fresh) list.replaceChildren();
    shown = key;
    where.textContent = `#${channel.name}`;
    composer.use(`${channel.id}/${root.ts}`, "Reply…");
    const spoken = replies.filter((reply) => !reply.ephemeral).length;
    const count = spoken ? `${spoken} ${spoken === 1 ? "reply" : "replies"}` : "No replies yet";
    const rows = [
      { kind: "message", key: `root-${root.ts}`, message: root, compact: false },
      ...(replies.length ? [{ kind: "count", key: "count", label: count }] : []),
      ...arrange(replies).filter((row) => row.kind === "message"),
    ];
    const testid = (message) => (message.ts === root.ts ? "thread-root" : "message");
    keepFocus(list, () => paintMessages(list, rows, { ...ctx, testid }));
    if (fresh) {
      if (replies.length) scroll.toBottom();
      else scroller.scrollTop = 0;
    }
  }

  return { paint };
}
