// The "Demo world" panel: the sample services as they are now, faults to switch on, and troubles for the Slack side.

import { get, post } from "./api.js";
import { div, h, icon, iconButton, patch, span } from "./dom.js";

const POLL_MS = 2000;
const RATE_LIMIT_S = 15;
const WARM_RATIO = 0.7;
const PRESSURE_RATIO = 0.85; // the bot's memory-pressure rule fires above this share of the limit

function megabytes(bytes) {
  return `${Math.round(bytes / 1_048_576)} MB`;
}

function flip({ title, description, on, hook, onFlip }) {
  const said = { "aria-checked": String(on), "aria-label": title };
  const node = h("button", { type: "button", class: "switch", role: "switch", ...said, ...hook, on: {
    click: async () => {
      if (node.getAttribute("aria-busy")) return;
      node.setAttribute("aria-busy", "true");
      await onFlip(node.getAttribute("aria-checked") !== "true");
      node.removeAttribute("aria-busy");
    },
  } },
  span("switch__text", span("switch__title", title), span("switch__description", description)),
  h("span", { class: "switch__track", "aria-hidden": "true" }));
  return node;
}

function instance(each) {
  const known = each.memory_limit_bytes > 0 && each.memory_bytes !== null;
  const ratio = known ? Math.min(1, each.memory_bytes / each.memory_limit_bytes) : 0;
  const level = ratio >= PRESSURE_RATIO ? "hot" : ratio >= WARM_RATIO ? "warm" : "cool";
  const bar = span(`meter__fill meter__fill--${level}`);
  bar.style.width = `${(ratio * 100).toFixed(1)}%`;
  const said = known ? `${megabytes(each.memory_bytes)} of ${megabytes(each.memory_limit_bytes)}` : "no memory figure";
  return h("div", { class: "instance", "data-testid": "instance", "data-instance": each.name },
    span(
      "instance__name",
      h("span", { class: each.ready ? "presence presence--on" : "presence" }),
      each.name,
      each.ready ? null : h("em", null, " starting"),
    ),
    span("instance__memory", said),
    h("span", {
      class: "meter", role: "meter", "aria-label": `Memory of ${each.name}`,
      "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": Math.round(ratio * 100), "aria-valuetext": said,
    }, bar));
}

function service(each) {
  const ready = each.instances.filter((one) => one.ready).length;
  return h("div", { class: "service", "data-testid": "service", "data-service": each.name },
    div("service__head", h("strong", null, each.name), h("span", null, `${ready}/${each.replicas} ready`)),
    each.instances.map(instance));
}

function loadLine(load) {
  const shown = (value) => (typeof value === "number" ? Math.round(value * 10) / 10 : value);
  const said = Object.entries(load ?? {}).filter(([, value]) => ["number", "string", "boolean"].includes(typeof value))
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${shown(value)}`);
  return said.length ? `Load: ${said.join(" · ")}` : "";
}

/** Build the panel. onTry(step) runs a step of the "Try this" list, onLapsed() when a rate limit has run out. */
export function createWorld(container, { onTry, onClose, onLapsed }) {
  const problem = h("p", { class: "world__problem", role: "status", "data-testid": "world-error" });
  const faults = div("world__list");
  const services = div("world__list");
  const load = h("p", { class: "world__load" });
  const trouble = div("world__list");
  const say = (answer) => { problem.textContent = answer.ok ? "" : answer.error; };
  let polling = null;
  let lapse = null;

  const step = (name, label) => h(
    "button",
    { type: "button", class: "linkbutton", "data-testid": `try-${name}`, on: { click: () => onTry(name) } },
    label,
  );
  const section = (title, ...content) => h("section", { class: "world__section" }, h("h3", null, title), ...content);
  container.replaceChildren(
    h("header", { class: "panel__head" }, h("h2", null, "Demo world"),
      iconButton("close", "Close the demo world", onClose, { testid: "close-world" })),
    div("world__scroll", problem,
      section("Try this", h("ol", { class: "steps" },
        h("li", null, "Switch on ", h("strong", null, "Memory leak"), " below."),
        h("li", null, "Wait for the card in ", step("channel", "#incidents"), " (up to two minutes)."),
        h("li", null, "Press ", h("strong", null, "Approve"), ", confirm, and open the thread to watch."),
        h("li", null, "Type ", step("status", "/sre status"), "."),
        h("li", null, step("guest", "Be Gil"), " (a guest) and press Approve: refused.")),
      h("p", { class: "world__note" }, step("alice", "Be Alice again"))),
      section("Faults", faults), section("Services", services, load), section("Trouble for the bot’s Slack", trouble)));

  async function setFault(name, on) {
    const answer = await post(`/local/world/faults/${encodeURIComponent(name)}`, { on });
    await poll();
    if (!answer.ok) say(answer);
  }

  async function poll() {
    const answer = await get("/local/world");
    problem.textContent = answer.ok ? "" : answer.error;
    if (!answer.ok) return;
    const now = { faults: [], services: [], ...answer.data };
    patch(faults, now.faults, {
      key: (each) => each.name,
      signature: (each) => JSON.stringify([each.title, each.description]),
      build: (each) => flip({
        ...each, on: each.active, hook: { "data-fault": each.name, "data-testid": "fault" },
        onFlip: (on) => setFault(each.name, on),
      }),
    });
    for (const each of now.faults) {
      const control = faults.querySelector(`[data-fault="${CSS.escape(each.name)}"]`);
      control.setAttribute("aria-checked", String(Boolean(each.active)));
    }
    patch(services, now.services, { key: (each) => each.name, signature: (each) => JSON.stringify(each), build: service });
    load.textContent = loadLine(answer.data.load);
  }

  function start() {
    if (polling) return;
    const own = (polling = new AbortController());
    const beat = async () => {
      if (!document.hidden) await poll();
      if (!own.signal.aborted) setTimeout(beat, POLL_MS);
    };
    beat();
  }

  function stop() {
    polling?.abort();
    polling = null;
  }

  const tell = async (change) => say(await post("/local/trouble", change));
  trouble.append(
    flip({
      title: "Rate limit (429)",
      description: `Slack answers 429 with Retry-After for ${RATE_LIMIT_S} s.`,
      on: false,
      hook: { "data-trouble": "rate_limit_s" },
      onFlip: (on) => tell({ rate_limit_s: on ? RATE_LIMIT_S : 0 }),
    }),
    flip({
      title: "Slack outage (500)",
      description: "Every Web API call fails until it is switched off.",
      on: false,
      hook: { "data-trouble": "outage" },
      onFlip: (on) => tell({ outage: on }),
    }),
    h("button", {
      type: "button", class: "btn world__drop", "data-trouble": "drop_socket", on: { click: () => tell({ drop_socket: true }) },
    }, icon("plug"), "Drop the socket once"));

  function paintTrouble({ rate_limit_s: rateLimit, outage }) {
    trouble.querySelector("[data-trouble=rate_limit_s]").setAttribute("aria-checked", String(rateLimit > 0));
    trouble.querySelector("[data-trouble=outage]").setAttribute("aria-checked", String(outage));
    clearTimeout(lapse);
    if (rateLimit > 0) lapse = setTimeout(onLapsed, (rateLimit + 0.3) * 1000); // it ends by itself, without an event
  }

  return { paintTrouble, start, stop };
}
