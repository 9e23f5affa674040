// Two rankings side by side, and what moved between them.

import { h, svg } from "./dom.js";
import { number, say } from "./words.js";

/**
 * What a document did between the two rankings.
 * @returns {{kind: string, from: ?number, to: ?number}} `up`, `down`, `same`; `new` and `gone` where one has no rank
 */
export function move(from, to) {
  if (!from) return { kind: "new", from, to };
  if (!to) return { kind: "gone", from, to };
  return { kind: to < from ? "up" : to > from ? "down" : "same", from, to };
}

/** One document of a ranking, as an item of its list. */
export function card(hit, rank, { change, depth, actions, opened }) {
  const open = h("button", { type: "button", class: "open", tabindex: -1, "aria-expanded": "false" }, say("more"));
  const text = h("p", { class: "text", dir: "auto" }, marked(hit.text, hit.highlights ?? []));
  const item = h(
    "li",
    { class: `hit ${change?.kind ?? ""}`, tabindex: -1, "data-id": hit.id },
    h(
      "div",
      { class: "head" },
      h("span", { class: "rank" }, h("span", { class: "unseen" }, say("rank", { rank })), seen(String(rank))),
      change ? badge(change, depth) : null,
      h("span", { class: "id", dir: "auto" }, hit.id),
      why(hit.explanation),
    ),
    text,
    h("div", { class: "foot" }, facts(hit.metadata), open, actions),
  );
  open.addEventListener("click", () => {
    const isOpen = item.classList.toggle("opened");
    open.textContent = say(isOpen ? "less" : "more");
    open.setAttribute("aria-expanded", String(isOpen));
    opened(isOpen);
  });
  return item;
}

/** A text with the query's words marked; places count code points, as the service does. */
export function marked(text, spans) {
  if (!spans.length) return [text];
  const characters = Array.from(text);
  const parts = [];
  let at = 0;
  for (const [start, end] of spans) {
    parts.push(characters.slice(at, start).join(""), h("mark", {}, characters.slice(start, end).join("")));
    at = end;
  }
  parts.push(characters.slice(at).join(""));
  return parts;
}

/** What moved, in one line. */
export function summary(changes) {
  const parts = ["up", "down", "new", "same"].map((kind) => [kind, changes.filter((one) => one.kind === kind).length]);
  const said = parts.filter(([, n]) => n).map(([kind, n]) => say(`summary_${kind}`, { n: number(n) }));
  return said.join(say("comma"));
}

/** Lines from each document's place on the left to its place on the right. */
export function drawMoves(canvas, left, right) {
  const box = canvas.getBoundingClientRect();
  const places = (list) => new Map([...list.children].map((item) => [item.dataset.id, middle(item, box)]));
  const from = places(left);
  const lines = [];
  if (box.width) {
    let rank = 0;
    const ranks = new Map([...from.keys()].map((id) => [id, (rank += 1)]));
    [...places(right)].forEach(([id, to], place) => {
      if (!from.has(id)) return;
      const { kind } = move(ranks.get(id), place + 1);
      const bend = box.width / 2;
      const d = `M0 ${from.get(id)}C${bend} ${from.get(id)} ${bend} ${to} ${box.width} ${to}`;
      lines.push(svg("path", { d, class: kind, "data-id": id }));
    });
  }
  canvas.replaceChildren(...lines);
}

function middle(item, box) {
  const head = item.firstElementChild.getBoundingClientRect();
  return Math.round(head.top + head.height / 2 - box.top);
}

const seen = (text) => h("span", { "aria-hidden": "true" }, text);

function badge({ kind, from, to }, depth) {
  const signs = { up: `↑ ${from - to}`, down: `↓ ${to - from}`, same: "=", new: say("entered"), gone: say("left") };
  const labels = {
    up: () => say("moved_up_label", { from, to }),
    down: () => say("moved_down_label", { from, to }),
    same: () => say("stayed"),
    new: () => say("entered_label", { depth }),
    gone: () => say("left_label", { depth }),
  };
  const label = labels[kind]();
  return h("span", { class: "badge", title: label }, seen(signs[kind]), h("span", { class: "unseen" }, label));
}

/** By which rank each way of searching has found it. */
function why(explanation) {
  const ways = ["dense", "lexical"].filter((way) => explanation?.hybrid && explanation[way]);
  if (!ways.length) return null;
  const text = ways.map((way) => say(`why_${way}`, { rank: explanation[way].rank })).join(" · ");
  return h("span", { class: "why", title: say("why_label", { ways: text }) }, text);
}

function facts(metadata) {
  const rows = Object.entries(metadata ?? {});
  if (!rows.length) return null;
  const values = (value) => (Array.isArray(value) ? value.join(", ") : String(value));
  return h(
    "dl",
    { class: "facts" },
    rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { dir: "auto" }, values(value)))),
  );
}
