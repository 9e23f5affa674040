// What is served: indexes, models, caches.

import { h } from "./dom.js";
import { brief, current, has, number, say } from "./words.js";

/** Draw it from `/v1/capabilities` and `/v1/models`. */
export function drawService(place, capabilities, models) {
  const facts = [
    ["service_base", brief(capabilities.base)],
    ["service_reranker", brief(capabilities.features.rerank ?? say("service_none"))],
    ["service_version", capabilities.version],
  ];
  place.replaceChildren(
    h("dl", { class: "facts large" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, say(name)), h("dd", {}, value)))),
    table("indexes", ["name", "documents", "backend", "size", "change", "language", "model", "space"], capabilities.indexes.map(indexRow)),
    table("models", ["name", "sides", "dimensions", "hash", "space"], models.filter((one) => !one.input_type).map(modelRow)),
    caches(capabilities.caches),
  );
}

function indexRow(index) {
  if (index.problem) return [index.name, index.problem];
  return [
    index.name,
    number(index.documents),
    index.backend,
    index.bytes === null ? "–" : size(index.bytes),
    index.epoch === null ? "–" : number(index.epoch),
    index.language ?? "–",
    index.models.join(", "),
    short(index.space),
  ];
}

function modelRow(model) {
  const sides = model.parent === null ? "base" : model.sides;
  return [model.id, say(`sides_${sides}`), number(model.dimensions), short(model.sha256), short(model.space.digest)];
}

/** Every cache has numbers; those with a name among the words go by it. */
function caches(found) {
  const rows = Object.entries(found);
  if (!rows.length) return h("section", {}, h("h3", {}, say("caches")), h("p", { class: "note" }, say("no_caches")));
  const names = [...new Set(rows.flatMap(([, state]) => Object.keys(state)))];
  const written = (name, value) => (value === undefined ? "–" : name === "bytes" ? size(value) : number(value));
  const called = (cache) => (has(`cache_${cache}`) ? say(`cache_${cache}`) : cache);
  const lines = rows.map(([cache, state]) => [called(cache), ...names.map((name) => written(name, state[name])), rate(state)]);
  const heads = [say("col_cache"), ...names.map((name) => (has(name) ? say(name) : name)), say("hit_rate")];
  return h("section", {}, h("h3", {}, say("caches")), grid(heads, lines));
}

function rate({ hits, misses }) {
  if (hits === undefined || !(hits + misses)) return "–";
  return new Intl.NumberFormat(current(), { style: "percent" }).format(hits / (hits + misses));
}

function table(title, columns, rows) {
  const heads = columns.map((name) => say(`col_${name}`));
  return h("section", {}, h("h3", {}, say(title)), grid(heads, rows));
}

function grid(heads, rows) {
  const cells = (row) => row.slice(1).map((value, place) => h("td", { colspan: row.length === 2 ? heads.length - 1 : null, class: /^[\d.,%\s]+/.test(value) && place >= 0 ? "number" : null }, value));
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": heads[0] },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, h("th", { scope: "row", dir: "auto" }, row[0]), cells(row)))),
    ),
  );
}

const short = (hash) => hash.slice(0, 12);

function size(bytes) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(bytes, 1)) / 3)));
  const style = { style: "unit", unit: units[step], unitDisplay: "short", maximumFractionDigits: 1 };
  return new Intl.NumberFormat(current(), style).format(bytes / 1000 ** step);
}
