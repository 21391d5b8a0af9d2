// The thread panel: the root message, its replies and its own composer.

import { createComposer } from "./composer.js";
import { h, icon, keepFocus, span } from "./dom.js";
import { arrange, paintMessages } from "./messages.js";
import { stickToBottom } from "./scroll.js";

/** Build the panel in container; returns {paint({root, replies, channel, ctx}), close state is the caller's}. */
export function createThread(container, { source, sendMessage, onClose }) {
  const list = h("div", { class: "thread__list", "data-testid": "thread-list" });
  const scroller = h("div", { class: "thread__scroll", tabindex: "-1" }, list);
  const where = span("panel__where");
  const composer = createComposer({
    testid: "thread-composer",
    allowCommands: false,
    source,
    sendMessage,
    sendCommand: null,
  });
  const scroll = stickToBottom(scroller, list);
  let shown = null;
  container.replaceChildren(
    h("header", { class: "panel__head" },
      h(
        "button",
        {
          type: "button",
          class: "iconbutton panel__back",
          "aria-label": "Back to the channel",
          on: { click: onClose },
        },
        icon("back"),
      ),
      h("h2", null, "Thread"), where,
      h("button", { type: "button", class: "iconbutton panel__close", "aria-label": "Close the thread", "data-testid": "close-thread", on: { click: onClose } }, icon("close"))),
    scroller, composer.root);

  function paint({ root, replies, channel, ctx }) {
    const key = `${ctx.me}/${channel.id}/${root.ts}`;
    const fresh = key !== shown;
    if (fresh) list.replaceChildren();
    shown = key;
    where.textContent = `#${channel.name}`;
    composer.use(`${channel.id}/${root.ts}`, "Reply…");
    const spoken = replies.filter((reply) => !reply.ephemeral).length;
    const rows = [
      { kind: "message", key: `root-${root.ts}`, message: root, compact: false },
      ...(replies.length ? [{
        kind: "count",
        key: "count",
        label: spoken ? `${spoken} ${spoken === 1 ? "reply" : "replies"}` : "No replies yet",
      }] : []),
      ...arrange(replies).filter((row) => row.kind === "message"),
    ];
    keepFocus(
      list,
      () => paintMessages(
        list,
        rows,
        { ...ctx, testid: (message) => (message.ts === root.ts ? "thread-root" : "message") },
      ),
    );
    if (fresh) {
      if (replies.length) scroll.toBottom();
      else scroller.scrollTop = 0;
    }
  }

  return { paint, focus: composer.focus };
}
