// The box one writes in: Enter sends, Shift+Enter breaks the line, / and @ bring up suggestions.

import { avatar, div, h, icon, span } from "./dom.js";
import { hintsFor } from "./hints.js";

const MARKS = [
  ["bold", "*", "Bold"],
  ["italic", "_", "Italic"],
  ["strike", "~", "Strikethrough"],
  ["code", "`", "Code"],
];

/**
 * testid: hook for browser tests. allowCommands: false in threads, as in Slack. source(): {commands, people} now.
 * sendMessage(text) and sendCommand(text) resolve to {ok, error}. Returns {root, use(draftKey, placeholder)}.
 */
export function createComposer({ testid, allowCommands, source, sendMessage, sendCommand }) {
  const drafts = new Map();
  let draftKey = null;
  let hints = [];
  let picked = -1;
  const listId = `${testid}-hints`;
  const list = h(
    "div",
    { class: "hints", id: listId, role: "listbox", "aria-label": "Suggestions", hidden: true, "data-testid": "hints" },
  );
  const notice = h("div", { class: "composer__notice", role: "alert", "data-testid": "composer-error" });
  const area = h(
    "textarea",
    {
      class: "composer__area",
      rows: 1,
      "data-testid": testid,
      "aria-autocomplete": "list",
      "aria-controls": listId,
      autocomplete: "off",
      spellcheck: "false",
    },
  );
  const send = h(
    "button",
    {
      type: "button",
      class: "composer__send",
      "aria-label": "Send now",
      "data-testid": `${testid}-send`,
      on: { click: () => submit() },
    },
    icon("send"),
  );

  function grow() {
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, 180)}px`;
    send.disabled = area.value.trim() === "";
  }

  function paintHints() {
    list.hidden = hints.length === 0;
    list.replaceChildren(...hints.map((hint, index) => h("button", {
      type: "button", tabindex: "-1", id: `${listId}-${index}`, class: "hint", role: "option", "data-testid": "hint",
      "aria-selected": String(index === picked),
      on: { pointerdown: (event) => event.preventDefault(), click: () => take(hint) },
    },
    hint.user ? avatar(hint.user, 24) : null,
    span("hint__title", hint.title), span("hint__usage", hint.usage), span("hint__description", hint.description))));
    if (picked >= 0) {
      area.setAttribute("aria-activedescendant", `${listId}-${picked}`);
      list.children[picked].scrollIntoView({ block: "nearest" });
    } else {
      area.removeAttribute("aria-activedescendant");
    }
  }

  function suggest() {
    hints = hintsFor(area.value, area.selectionStart, { ...source(), allowCommands });
    picked = hints[0]?.eager ? 0 : -1;
    paintHints();
  }

  function dropHints() {
    hints = [];
    picked = -1;
    paintHints();
  }

  function take(hint) {
    if (hint.insert !== null) {
      area.value = hint.insert + (hint.after ?? "");
      area.setSelectionRange(hint.insert.length, hint.insert.length);
    }
    area.focus();
    grow();
    suggest();
  }

  async function submit() {
    const text = area.value.trim();
    if (!text) return;
    const key = draftKey;
    const command = area.value.startsWith("/");
    notice.textContent = "";
    if (command && !allowCommands) {
      notice.textContent = `${text.split(/\s/)[0]} is not supported in threads. Mention the bot with @ instead.`;
      return;
    }
    area.value = "";
    grow();
    dropHints();
    const answer = await (command ? sendCommand(text) : sendMessage(text));
    if (answer.ok) return;
    notice.textContent = answer.error ?? "Not sent.";
    if (key !== draftKey) drafts.set(key, text);
    else if (area.value === "") {
      area.value = text;
      grow();
    }
  }

  function wrap(mark) {
    const { selectionStart: from, selectionEnd: to } = area;
    area.setRangeText(`${mark}${area.value.slice(from, to)}${mark}`, from, to, "end");
    if (from === to) area.setSelectionRange(from + 1, from + 1);
    area.focus();
    grow();
  }

  function type(text) {
    area.setRangeText(text, area.selectionStart, area.selectionEnd, "end");
    area.focus();
    grow();
    suggest();
  }

  area.addEventListener("input", () => {
    notice.textContent = "";
    grow();
    suggest();
  });
  area.addEventListener("blur", dropHints);
  area.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && hints.length) {
      picked = picked < 0 && step < 0 ? hints.length - 1 : (picked + step + hints.length) % hints.length;
      paintHints();
    } else if (event.key === "Tab" && !event.shiftKey && hints.some((hint) => hint.insert !== null)) {
      take(hints[Math.max(0, picked)]);
    } else if (event.key === "Enter" && !event.shiftKey) {
      if (picked >= 0 && hints[picked].insert !== null) take(hints[picked]);
      else submit();
    } else if (event.key === "Escape" && hints.length) {
      dropHints();
      event.stopPropagation();
    } else {
      return;
    }
    event.preventDefault();
  });

  const tool = (name, label, action) => h(
    "button",
    {
      type: "button",
      class: "iconbutton iconbutton--tool",
      "aria-label": label,
      title: label,
      on: { pointerdown: (event) => event.preventDefault(), click: action },
    },
    icon(name),
  );
  const root = div("composer", list, notice, h("div", { class: "composer__box" },
    div("composer__marks", MARKS.map(([name, mark, label]) => tool(name, label, () => wrap(mark)))), area,
    div("composer__tools", tool("at", "Mention someone", () => type("@")),
      allowCommands ? tool("slash", "Run a slash command", () => (area.value === "" ? type("/") : area.focus())) : null, send)));
  grow();

  return {
    root,
    /** Show the draft kept under this key; nothing happens when it is the one on show. */
    use(key, placeholder) {
      area.placeholder = placeholder;
      area.setAttribute("aria-label", placeholder);
      if (key === draftKey) return;
      if (draftKey !== null) drafts.set(draftKey, area.value);
      draftKey = key;
      area.value = drafts.get(key) ?? "";
      notice.textContent = "";
      grow();
      dropHints();
    },
  };
}
