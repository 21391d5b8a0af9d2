// What floats above the page: menus, the confirm dialog, the enlarged picture.

import { div, h, iconButton, span } from "./dom.js";
import { textObject } from "./mrkdwn.js";

let openMenu = null;

/** Close the open menu, if any; true when there was one. */
export function closeMenu() {
  if (!openMenu) return false;
  const { node, opener, stop } = openMenu;
  openMenu = null;
  stop.abort();
  node.remove();
  opener.setAttribute("aria-expanded", "false");
  if (opener.isConnected) opener.focus({ preventScroll: true });
  return true;
}

function place(node, box) {
  const below = window.innerHeight - box.bottom;
  const height = Math.min(node.offsetHeight, 320);
  node.style.top = below > height + 12 || below > box.top ? `${box.bottom + 4}px` : `${Math.max(8, box.top - height - 4)}px`;
  node.style.left = `${Math.max(8, Math.min(box.left, window.innerWidth - node.offsetWidth - 8))}px`;
}

/**
 * A menu under opener. options: Slack option objects ({text, value, description?}); onPick(option) after one is chosen.
 * It lives outside the message, so it stays open while the message under it is painted anew.
 */
export function showMenu(opener, options, onPick, { ctx, selected, search = false, label }) {
  if (openMenu?.opener === opener) {
    closeMenu();
    return;
  }
  closeMenu();
  const list = h("div", { class: "menu__list", role: "listbox", "aria-label": label });
  const fill = (needle) => {
    const shown = options.filter((option) => (option.text?.text ?? "").toLowerCase().includes(needle));
    list.replaceChildren(...shown.map((option) =>
      h("button", {
        type: "button", class: "menu__item", role: "option", "data-testid": "option", "data-value": option.value,
        "aria-selected": String(option.value === selected),
        on: { click: () => { closeMenu(); onPick(option); } },
      },
      span("menu__text", textObject(option.text, ctx)),
      option.description ? span("menu__description", textObject(option.description, ctx)) : null)));
    if (shown.length === 0) list.append(div("menu__empty", "No results"));
  };
  fill("");
  const box = search && options.length > 6
    ? h(
      "input",
      {
        class: "menu__search",
        type: "text",
        placeholder: "Search",
        "aria-label": "Search options",
        on: { input: (event) => fill(event.target.value.toLowerCase()) },
      },
    )
    : null;
  const node = h("div", { class: "menu", "data-testid": "menu" }, box, list);
  const stop = new AbortController();
  openMenu = { node, opener, stop };
  (opener.closest("dialog") ?? document.body).append(node);
  opener.setAttribute("aria-expanded", "true");
  place(node, opener.getBoundingClientRect());
  (box ?? node.querySelector("[aria-selected=true]") ?? node.querySelector("button"))?.focus({ preventScroll: true });
  const { signal } = stop;
  node.addEventListener("keydown", (event) => {
    const items = [...list.querySelectorAll("button")];
    const at = items.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) items[(at + step + items.length) % items.length]?.focus();
    else if (event.key === "Escape" || event.key === "Tab") closeMenu();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }, { signal });
  document.addEventListener("pointerdown", (event) => {
    if (!node.contains(event.target) && !opener.contains(event.target)) closeMenu();
  }, { signal, capture: true });
  window.addEventListener("resize", closeMenu, { signal });
}

/** A modal <dialog> that removes itself when closed. */
function present(dialog) {
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.showModal();
}

/** Slack's confirm dialog for a confirm object ({title, text, confirm, deny, style?}); resolves to true when confirmed. */
export function confirmDialog(confirm, ctx) {
  return new Promise((resolve) => {
    let answer = false;
    const end = (value) => () => {
      answer = value;
      dialog.close();
    };
    const danger = confirm.style === "danger";
    const look = danger ? "btn btn--danger-filled" : "btn btn--primary";
    const yes = h("button", { type: "button", class: look, "data-testid": "confirm-ok", on: { click: end(true) } },
      textObject(confirm.confirm ?? { type: "plain_text", text: "Yes" }, ctx));
    const named = { "aria-labelledby": "confirm-title", "aria-describedby": "confirm-text" };
    const dialog = h("dialog", { class: "dialog dialog--small", "data-testid": "confirm-dialog", ...named },
      h("div", { class: "dialog__head" },
        h(
          "h2",
          { id: "confirm-title" },
          textObject(confirm.title ?? { type: "plain_text", text: "Are you sure?" }, ctx),
        ),
        iconButton("close", "Close", end(false))),
      h("div", { class: "dialog__body text", id: "confirm-text" }, textObject(confirm.text, ctx)),
      h("div", { class: "dialog__foot" },
        h(
          "button",
          { type: "button", class: "btn", "data-testid": "confirm-cancel", on: { click: end(false) } },
          textObject(confirm.deny ?? { type: "plain_text", text: "Cancel" }, ctx),
        ),
        yes));
    dialog.addEventListener("close", () => resolve(answer));
    present(dialog);
    yes.focus();
  });
}

/** The picture at full size. */
export function lightbox(src, alt, title) {
  const dialog = h("dialog", { class: "dialog lightbox", "aria-label": title || alt || "Image", "data-testid": "lightbox" },
    h("div", { class: "dialog__head" },
      h("h2", null, title || alt || "Image"),
      iconButton("close", "Close", () => dialog.close())),
    h("img", { src, alt }));
  present(dialog);
}
