// Building and patching DOM nodes. Text only ever enters the page as text nodes, so no message can inject markup.

const SVG = "http://www.w3.org/2000/svg";

/** h(
  "button",
  {class: "x", on: {click}},
  "text",
  node…,
): attributes by name; null, undefined and false are left out. */
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") {
      for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    } else if (key === "value") {
      node.value = value;
    } else {
      node.setAttribute(key, value === true ? "" : value);
    }
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** The two wrappers used everywhere: a class and children. */
export const div = (name, ...children) => h("div", { class: name }, ...children);
export const span = (name, ...children) => h("span", { class: name }, ...children);

const ICONS = {
  hash: "M7.5 3.5 6 16.5M14 3.5l-1.5 13M3.5 7.5h14M2.5 12.5h14",
  menu: "M3 5.5h14M3 10h14M3 14.5h14",
  close: "M5 5l10 10M15 5 5 15",
  send: "M3.5 10.5 3 4l14 6-14 6 .5-5.5m0 0H10",
  thread: "M4 4h12a1.5 1.5 0 0 1 1.5 1.5v7A1.5 1.5 0 0 1 16 14h-5l-4 3v-3H4a1.5 1.5 0 0 1-1.5-1.5v-7A1.5 1.5 0 0 1 4 4zM6 7.5h8M6 10.5h5",
  dots: "M4.6 10h.1M10 10h.1M15.3 10h.1",
  eye: "M2 10s3-5 8-5 8 5 8 5-3 5-8 5-8-5-8-5zM10 12.2a2.2 2.2 0 1 0 0-4.4 2.2 2.2 0 0 0 0 4.4z",
  chevron: "M6 8l4 4 4-4",
  back: "M12.5 4.5 7 10l5.5 5.5",
  panel: "M3 4.5h14v11H3zM12.5 4.5v11",
  file: "M5 2.5h6.5L15.5 6.5v11H5zM11.5 2.5v4h4M7.5 10.5h5.5M7.5 13.5h5.5",
  pulse: "M2.5 11h3.2l2-5.5 3.4 10 2.2-4.5h4.2",
  at: "M13.2 10a3.2 3.2 0 1 1-6.4 0 3.2 3.2 0 0 1 6.4 0zm0 0v1.2c0 2.6 4 2.6 4-1.2A7.2 7.2 0 1 0 14 15.9",
  slash: "M12 5 8 15M4 2.8h12A1.2 1.2 0 0 1 17.2 4v12a1.2 1.2 0 0 1-1.2 1.2H4A1.2 1.2 0 0 1 2.8 16V4A1.2 1.2 0 0 1 4 2.8z",
  bold: "M6 4h5a3 3 0 0 1 0 6H6zM6 10h6a3 3 0 0 1 0 6H6z",
  italic: "M8.5 4h5M6.5 16h5M11.5 4l-3 12",
  strike: "M3.5 10h13M13.5 6.2C13 4.8 11.7 4 10 4 8 4 6.6 5 6.6 6.6c0 .9.5 1.6 1.3 2M6.4 13.6c.5 1.5 1.8 2.4 3.7 2.4 2.1 0 3.5-1 3.5-2.7",
  code: "M7 6l-4 4 4 4M13 6l4 4-4 4",
  plug: "M7 3v4M13 3v4M5 7h10v3a5 5 0 0 1-10 0zM10 15v3",
};

/** A 20×20 line icon; decorative, so the button around it carries the label. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("class", `icon icon--${name}`);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A square button that shows only an icon; label is what it is called. */
export function iconButton(name, label, onClick, { look = "", testid } = {}) {
  const props = { type: "button", class: `iconbutton ${look}`, "aria-label": label, title: label, "data-testid": testid };
  return h("button", { ...props, on: { click: onClick } }, icon(name));
}

/** A person's or the bot's square picture: initials on their colour; the bot shows a pulse line. */
export function avatar(user, size = 36) {
  const box = h("span", { class: `avatar avatar--${size}`, "aria-hidden": "true" });
  if (/^#[0-9a-f]{3,8}$/i.test(user?.color ?? "")) box.style.backgroundColor = user.color;
  if (user?.role === "bot") box.classList.add("avatar--bot");
  box.append(user?.role === "bot" ? icon("pulse") : (user?.initials ?? "?"));
  return box;
}

/** Only http(s) and same-origin paths are followed; anything else (javascript:, data:) gives null. */
export function safeUrl(url) {
  if (typeof url !== "string" || url === "") return null;
  try {
    const parsed = new URL(url, location.origin);
    return parsed.protocol === "http:" || parsed.protocol === "https:" ? parsed.href : null;
  } catch {
    return null;
  }
}

const painted = new WeakMap();

/**
 * Make container's children show items, reusing the node of every item whose key and signature did not change.
 * build(item, previousNode) may update previousNode and return it, or return a new node.
 */
export function patch(container, items, { key, signature, build }) {
  const keys = items.map(key);
  const wanted = new Set(keys);
  const before = new Map();
  for (const child of [...container.children]) {
    const childKey = painted.get(child)?.key;
    if (wanted.has(childKey)) before.set(childKey, child);
    else child.remove();
  }
  let cursor = container.firstElementChild;
  for (const [index, item] of items.entries()) {
    const itemSignature = signature(item, index);
    const old = before.get(keys[index]);
    let node = old;
    if (!old || painted.get(old).signature !== itemSignature) {
      node = build(item, old);
      painted.set(node, { key: keys[index], signature: itemSignature });
      if (old && node !== old) {
        if (cursor === old) cursor = node;
        old.replaceWith(node);
      }
    }
    if (node === cursor) cursor = cursor.nextElementSibling;
    else container.insertBefore(node, cursor);
  }
}

/** Run paint() and give the focus back to the control with the same action id when the focused one was replaced. */
export function keepFocus(scope, paint) {
  const focused = scope.contains(document.activeElement) ? document.activeElement : null;
  const actionId = focused?.getAttribute("data-action-id");
  const message = focused?.closest("[data-ts]");
  paint();
  if (!focused || focused.isConnected) return;
  const home = message?.isConnected ? message : scope;
  const twin = actionId ? home.querySelector(`[data-action-id="${CSS.escape(actionId)}"]`) : null;
  (twin ?? (message?.isConnected ? message : null))?.focus({ preventScroll: true });
}
