// The local Slack's page: one person's view of /local/state, painted anew whenever the server says it changed.

import { coalesce, get, post, subscribe } from "./api.js";
import { createComposer } from "./composer.js";
import { avatar, div, h, icon, keepFocus, span } from "./dom.js";
import { closeMenu } from "./layer.js";
import { arrange, paintMessages } from "./messages.js";
import { createReadMarks, parseRoute, permalink } from "./route.js";
import { stickToBottom } from "./scroll.js";
import { paintSidebar } from "./sidebar.js";
import { createThread } from "./thread.js";
import { createModals, paintHome } from "./views.js";
import { createWorld } from "./world.js";

const FIRST_USER = "U0ALICE";
const WIDE_PX = 1200;

const byId = (id) => document.getElementById(id);
const main = {
  header: byId("main-header"),
  body: byId("main-body"),
  scroller: byId("scroller"),
  composer: byId("main-composer"),
  jump: byId("jump"),
};
const marks = createReadMarks();
const dismissed = new Set();
const paintModals = createModals();

let me = new URLSearchParams(location.search).get("as") ?? sessionStorage.getItem("as") ?? FIRST_USER;
let state = null;
let route = null;
let painted = null; // which page of which person main.body shows
let unsubscribe = null;
let asked = null; // the person the Home tab was last opened for

const scroll = stickToBottom(main.scroller, main.body, (away) => {
  if (!away) main.jump.hidden = true;
});

function source() {
  return { commands: state?.commands ?? [], people: state?.users ?? [] };
}

function messagesOf(channel) {
  return (state.messages[channel] ?? []).filter((message) => !dismissed.has(message.ts));
}

function inChannel(message) {
  return !message.thread_ts || message.thread_ts === message.ts || message.subtype === "thread_broadcast";
}

function repliesOf(channel, root) {
  return messagesOf(channel).filter((message) => message.thread_ts === root.ts && message.ts !== root.ts);
}

function unread(channel) {
  const seen = marks.get(me, channel);
  const isNew = (message) => inChannel(message) && message.user !== me && (seen === undefined || message.ts > seen);
  return messagesOf(channel).filter(isNew).length;
}

function context(channel) {
  const users = new Map(state.users.map((user) => [user.id, user]));
  const channels = new Map(state.channels.map((each) => [each.id, each]));
  return {
    me,
    people: state.users,
    channels: state.channels,
    user: (id) => users.get(id),
    channel: (id) => channels.get(id),
    actOn: async (message, payload) => {
      const answer = await post("/local/action", { as: me, channel, ts: message.ts, ...payload });
      refresh();
      return answer;
    },
    dismiss: (message) => {
      dismissed.add(message.ts);
      paint();
    },
  };
}

function go(hash) {
  if (location.hash === `#${hash}`) navigate();
  else location.hash = hash;
}

// ---- painting

function paintChannel(channel) {
  const base = context(channel.id);
  const roots = messagesOf(channel.id).filter(inChannel);
  const ctx = {
    ...base,
    repliesOf: (message) => (message.ephemeral ? [] : repliesOf(channel.id, message)),
    openThread: (ts) => go(`${channel.id}/${ts}`),
    unreadReplies: (root, replies) => {
      const newest = replies.at(-1);
      return Boolean(newest) && route.thread !== root.ts && newest.user !== me && newest.ts > (marks.get(me, root.ts) ?? "");
    },
  };
  const rows = arrange(roots);
  const before = main.body.querySelectorAll(".message").length;
  if (rows.length === 0) {
    main.body.replaceChildren(div(
      "empty",
      h("h2", null, `# ${channel.name}`),
      h("p", null, `This is the very beginning of the #${channel.name} channel.`),
    ));
  } else {
    main.body.querySelector(".empty")?.remove();
    keepFocus(main.body, () => paintMessages(main.body, rows, ctx));
  }
  if (!scroll.stuck && main.body.querySelectorAll(".message").length > before && before > 0) main.jump.hidden = false;
  if (scroll.stuck && !document.hidden) marks.set(me, channel.id, roots.at(-1)?.ts);
  composer.use(channel.id, `Message #${channel.name}`);
}

function paintHeader() {
  const bot = state.users.find((user) => user.role === "bot");
  const signature = JSON.stringify([route.page, route.channel, state.channels, state.users]);
  if (main.header.dataset.painted === signature) return;
  main.header.dataset.painted = signature;
  if (route.page === "home") {
    main.header.replaceChildren(
      avatar(bot, 24),
      h("h1", null, bot?.real_name ?? "sre-bot"),
      span("badge", "APP"),
      h("span", { class: "tab", "aria-current": "page" }, "Home"),
    );
    return;
  }
  const channel = state.channels.find((each) => each.id === route.channel);
  const people = state.users.filter((user) => user.role !== "bot" || channel.is_member);
  main.header.replaceChildren(icon("hash"), h("h1", null, channel.name),
    span("main__note", channel.is_member ? "" : `${bot.real_name} is not here: /invite @${bot.name}`),
    h("span", { class: "faces", title: people.map((user) => user.real_name).join(", "), role: "img", "aria-label": `${people.length} members` },
      people.slice(-3).map((user) => avatar(user, 24)), span("faces__count", String(people.length))));
}

function paintStatus() {
  const { connected, mode } = state.bot;
  const how = { socket: "Socket Mode", http: "HTTP" }[mode];
  const status = byId("bot-status");
  status.dataset.connected = String(connected);
  status.replaceChildren(
    span(connected ? "presence presence--on" : "presence"),
    connected ? `sre-bot connected${how ? ` · ${how}` : ""}` : "sre-bot is not connected",
  );
  const total = state.channels.reduce((sum, channel) => sum + unread(channel.id), 0);
  const place = route.page === "home" ? "sre-bot" : `#${state.channels.find((each) => each.id === route.channel).name}`;
  document.title = `${total ? `(${total}) ` : ""}${place} · ${state.team.name} · Slack`;
}

function paintThread() {
  const panel = byId("thread");
  const channel = state.channels.find((each) => each.id === route.channel);
  const root = route.thread && messagesOf(route.channel).find((message) => message.ts === route.thread);
  panel.hidden = !root;
  byId("frame").classList.toggle("frame--thread", Boolean(root));
  if (!root) return;
  const replies = repliesOf(channel.id, root);
  thread.paint({ root, replies, channel, ctx: context(channel.id) });
  if (!document.hidden) marks.set(me, root.ts, replies.at(-1)?.ts);
}

function paint() {
  if (state?.me !== me) return; // nothing yet, or still the person one was before
  route = parseRoute(location.hash, state);
  openHome();
  const page = `${me}/${route.channel ?? route.page}`;
  const fresh = page !== painted;
  if (fresh) {
    main.body.replaceChildren();
    main.body.classList.toggle("home", route.page === "home");
    main.jump.hidden = true;
    painted = page;
  }
  main.composer.hidden = route.page === "home";
  if (route.page === "home") paintHome(main.body, state.home, context(null));
  else paintChannel(state.channels.find((each) => each.id === route.channel));
  if (fresh) {
    if (route.page === "home") main.scroller.scrollTop = 0;
    else scroll.toBottom();
  }
  paintHeader();
  paintThread();
  paintStatus();
  paintSidebar(byId("sidebar"), { state, route, unread, onBe: be, onClose: () => showSidebar(false) });
  paintModals(state.modals, context(null));
  world.paintTrouble(state.trouble);
}

// ---- talking to the server

const refresh = coalesce(async () => {
  const asking = me;
  const answer = await get(`/local/state?as=${encodeURIComponent(asking)}`);
  if (asking !== me) return;
  if (!answer.ok) {
    byId("offline").hidden = false;
    if (answer.status >= 400 && answer.status < 500 && me !== FIRST_USER) be(FIRST_USER);
    return;
  }
  state = answer.data;
  paint();
});

function be(user) {
  me = user;
  sessionStorage.setItem("as", user);
  const address = new URL(location.href);
  if (address.searchParams.has("as")) {
    address.searchParams.set("as", user);
    history.replaceState(null, "", address);
  }
  closeMenu();
  unsubscribe?.();
  unsubscribe = subscribe(user, { onChange: refresh, onOnline: (online) => { byId("offline").hidden = online; } });
  asked = null;
  refresh();
}

/** Tell the bot, once a visit, that its Home tab was opened. */
function openHome() {
  if (route.page !== "home") asked = null;
  else if (asked !== me) {
    asked = me;
    post("/local/home", { as: me }).then(refresh);
  }
}

function navigate() {
  closeMenu();
  showSidebar(false);
  if (window.innerWidth < WIDE_PX) showWorld(false);
  paint();
}

async function send(path, body) {
  const answer = await post(path, { as: me, channel: route.channel, ...body });
  refresh();
  return answer;
}

const composer = createComposer({
  testid: "composer", allowCommands: true, source,
  sendMessage: (text) => { scroll.toBottom(); return send("/local/message", { text }); },
  sendCommand: (text) => { scroll.toBottom(); return send("/local/command", { text }); },
});
const thread = createThread(byId("thread"), {
  source, onClose: () => go(route.channel),
  sendMessage: (text) => send("/local/message", { text, thread_ts: route.thread }),
});
const firstChannel = () => state?.channels.find((channel) => channel.is_member)?.id ?? "";
const world = createWorld(byId("world"), {
  onClose: () => showWorld(false),
  onLapsed: () => refresh(),
  onTry: (step) => {
    if (step === "guest") be("U0GIL");
    else if (step === "alice") be("U0ALICE");
    else if (route?.page !== "channel") go(firstChannel());
    if (step === "channel") go(firstChannel());
    if (step === "status") send("/local/command", { channel: firstChannel(), text: "/sre status" });
    if (window.innerWidth < WIDE_PX) showWorld(false);
  },
});

function showWorld(open) {
  const frame = byId("frame");
  frame.classList.toggle("frame--world", open);
  byId("toggle-world").setAttribute("aria-expanded", String(open));
  byId("scrim").hidden = !(open && window.innerWidth < WIDE_PX);
  if (window.innerWidth >= WIDE_PX) localStorage.setItem("local-slack-world", open ? "open" : "closed");
  if (open) world.start();
  else world.stop();
}

function showSidebar(open) {
  byId("frame").classList.toggle("frame--sidebar", open);
  byId("scrim").hidden = !open;
}

if (location.pathname !== "/") history.replaceState(null, "", `/${permalink(location.href) ?? ""}`);
main.composer.append(composer.root);
byId("open-sidebar").append(icon("menu"));
byId("open-sidebar").addEventListener("click", () => showSidebar(true));
byId("sidebar").addEventListener("click", (event) => {
  if (event.target.closest(".row, .person")) showSidebar(false);
});
byId("toggle-world").append(icon("panel"), h("span", null, "Demo world"));
byId("toggle-world").addEventListener("click", () => showWorld(!byId("frame").classList.contains("frame--world")));
byId("scrim").addEventListener("click", () => { showSidebar(false); showWorld(false); });
main.jump.addEventListener("click", scroll.toBottom);
window.addEventListener("hashchange", navigate);
document.addEventListener("visibilitychange", () => { if (!document.hidden) paint(); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  if (closeMenu()) return;
  if (!byId("scrim").hidden) { showSidebar(false); showWorld(false); }
  else if (route?.thread) go(route.channel);
});
showWorld(window.innerWidth >= WIDE_PX && localStorage.getItem("local-slack-world") !== "closed");
be(me);
