// The aubergine column: workspace, channels, the app, and who one is.

import { avatar, div, h, icon, iconButton, span } from "./dom.js";

function row({ label, mark, active, unread, href, testid, badge }) {
  const look = `row${active ? " row--active" : ""}${unread ? " row--unread" : ""}`;
  return h("a", { class: look, href, "aria-current": active ? "page" : null, "data-testid": testid },
    mark, span("row__label", label),
    badge ? h("span", { class: "row__badge", "aria-label": `${badge} new` }, String(badge)) : null);
}

let painted = "";

/**
 * Paint the sidebar. view: {state, route, unread(channelId) → number, onBe(userId), onClose()}.
 * Links change the address' hash, which is the page's only router.
 */
export function paintSidebar(container, { state, route, unread, onBe, onClose }) {
  const signature = JSON.stringify([
    state.team,
    state.users,
    state.channels,
    state.bot,
    state.me,
    route.page,
    route.channel,
    state.channels.map((channel) => unread(channel.id)),
  ]);
  if (signature === painted) return; // a rebuild between press and release would swallow the click
  painted = signature;
  const seconds = state.users.filter((user) => user.role === "approver").slice(1).map((user) => user.id);
  const channels = state.channels.map((channel) => {
    const active = route.page === "channel" && route.channel === channel.id;
    const count = active ? 0 : unread(channel.id);
    return row({
      label: channel.name,
      mark: icon("hash"),
      active,
      unread: count > 0,
      badge: count,
      href: `#${channel.id}`,
      testid: `channel-${channel.id}`,
    });
  });
  const bot = state.users.find((user) => user.role === "bot");
  const face = span("row__avatar", avatar(bot, 20), span(state.bot.connected ? "presence presence--on" : "presence"));
  const people = state.users.filter((user) => user.role !== "bot").map((user) => h("button", {
    type: "button", class: `person${user.id === state.me ? " person--me" : ""}`, "data-user": user.id, "data-testid": "person",
    "aria-pressed": String(user.id === state.me),
    on: { click: () => onBe(user.id) },
  }, avatar(user, 24), span("person__text", span("person__name", user.real_name),
    span("person__role", seconds.includes(user.id) ? "second approver" : user.role))));
  const focused = document.activeElement?.closest("#sidebar [data-user]")?.getAttribute("data-user");
  container.replaceChildren(
    div("workspace",
      h("span", { class: "workspace__icon", "aria-hidden": "true" }, state.team.name[0]),
      span("workspace__name", state.team.name),
      iconButton("close", "Close the sidebar", onClose, { look: "iconbutton--light sidebar__close", testid: "close-sidebar" })),
    h("div", { class: "sidebar__scroll" },
      div("sidebar__title", "Channels"), channels,
      div("sidebar__title", "Apps"),
      row({ label: bot.real_name, mark: face, active: route.page === "home", href: "#home", testid: "app-home" })),
    div("people", div("sidebar__title", "You are"), people));
  if (focused) container.querySelector(`[data-user="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}
