// The page: connect, fill the controls, search, show.

import { AnswerPane } from "./answer.js";
import { call, key, Refused } from "./api.js";
import { askBase, obstacle, SHOWN } from "./compare.js";
import { byId, h, keep, kept } from "./dom.js";
import { Filters } from "./filters.js";
import { askForKey, listenToKeys } from "./key_dialog.js";
import { goTo, listen, makeCurrent } from "./keyboard.js";
import { Marks } from "./marks.js";
import { Picture } from "./picture.js";
import { forTexts, Pictures } from "./pictures.js";
import { card, drawMoves, move, summary } from "./results.js";
import { drawRoute } from "./route.js";
import { drawService } from "./service.js";
import { nextTheme, showTheme } from "./theme_switch.js";
import { brief, number, onLanguage, say, switchLanguage, translate } from "./words.js";

const RERANK = 50;
const RETRY_MS = 1500;

let capabilities = null;
let running = null;
/** The last search: what was asked, what came, the base's ranking once it is there. */
let last = null;
/** What the page says of itself, as a function, so that it can be said in another language. */
let status = () => "";

const filters = new Filters(byId("fields"), byId("expression"), () => changed());
const answer = new AnswerPane(byId("answer"), goTo);
const picture = new Picture((file) => searchBy(file));
const pictures = new Pictures(byId("pictures"), async (file) => {
  await searchBy(file);
  byId("clear-picture").focus(); // what was chosen is not there any more
});

// Connecting

async function connect() {
  for (;;) {
    try {
      capabilities = await call("GET", "/v1/capabilities");
      break;
    } catch (error) {
      if (error.status === 401 || error.status === 403) await askForKey(error);
      else if (error.status === 0 || error.status === 503) {
        tellStatus(() => say(error.status ? "loading" : "unreachable"));
        await new Promise((later) => setTimeout(later, RETRY_MS));
      } else throw error;
    }
  }
  byId("forget-key").hidden = key.get() === null;
  byId("open-service").disabled = false;
  fill();
}

// Controls

function fill() {
  const { features, indexes } = capabilities;
  byId("served").textContent = brief(capabilities.base);
  byId("rerank-choice").hidden = !features.rerank;
  byId("ask-answer").hidden = !features.answer;
  byId("help-marks").hidden = !features.feedback;
  byId("index-choice").hidden = indexes.length < 2;
  byId("index").replaceChildren(...indexes.map((one) => h("option", { value: one.name }, one.name)));
  const wanted = new URLSearchParams(location.hash.slice(1));
  if (indexes.some((one) => one.name === wanted.get("index"))) byId("index").value = wanted.get("index");
  fillIndex();
  if (!indexes.length) tellStatus(() => say("no_index"));
  else tellStatus(() => say(comparable() ? "start" : "start_single"));
  restore(wanted);
}

/** The index that is searched. */
const index = () => capabilities.indexes.find((one) => one.name === byId("index").value);

/** What depends on the index: adapters, fields, whether there is a base to compare with. */
function fillIndex() {
  const one = index();
  if (!one) return;
  const before = byId("adapter").value;
  const routes = capabilities.features.route ?? [];
  const options = [
    h("option", { value: "" }, say("adapter_own", { name: one.model })),
    ...one.models.filter((name) => name !== one.model && name !== "base").map((name) => h("option", {}, name)),
    ...routes.map((name) => h("option", { value: name }, say(`route_${name}`))),
  ];
  byId("adapter").replaceChildren(...options);
  if (options.some((option) => option.value === before)) byId("adapter").value = before;
  byId("adapter-choice").hidden = options.length < 2;
  byId("compare-choice").hidden = !comparable();
  byId("filter-sample").hidden = one.documents <= 200 || !one.fields.length;
  filters.show(one.fields);
  picture.offer((capabilities.features.pictures ?? []).includes(one.name));
}

const comparable = () => index()?.models.some((name) => name !== "base") ?? false;
const mode = () => document.querySelector("input[name=mode]:checked").value;

/** The last search's controls, from the address: a search can be kept as a bookmark, and the back button goes back. */
function restore(wanted) {
  const query = wanted.get("q");
  if (query === null) return;
  byId("query").value = query;
  const radio = document.querySelector(`input[name=mode][value="${CSS.escape(wanted.get("mode") ?? "hybrid")}"]`);
  if (radio) radio.checked = true;
  byId("adapter").value = wanted.get("adapter") ?? "";
  if (byId("adapter").selectedIndex < 0) byId("adapter").value = "";
  byId("rerank").checked = wanted.has("rerank") && !byId("rerank-choice").hidden;
  filters.clear();
  byId("expression").value = wanted.get("filter") ?? "";
  search({ remember: false });
}

function remember(request) {
  const kept = { q: request.query, mode: request.mode, index: capabilities.indexes.length > 1 && request.index };
  Object.assign(kept, { adapter: request.adapter, filter: request.filter, rerank: request.rerank });
  const rows = Object.entries(kept).filter(([, value]) => value);
  history.pushState(null, "", `#${new URLSearchParams(rows)}`);
}

/** A control was changed: the filters' number is shown, and a search that is on the page is done again. */
function changed() {
  const count = filters.count;
  byId("filter-count").hidden = !count;
  byId("filter-count").textContent = count ? say("filters_on", { n: count }) : "";
  if (last) search();
}

// Searching

function asked() {
  const request = { query: byId("query").value.trim(), index: index().name, mode: mode(), top_k: SHOWN };
  if (picture.found) {
    delete request.query;
    Object.assign(request, picture.found, { mode: "dense", explain: true });
    return filters.text ? { ...request, filter: filters.text } : request;
  }
  const adapter = byId("adapter").value;
  if (adapter) request.adapter = adapter;
  if (filters.text) request.filter = filters.text;
  if (byId("rerank").checked && !byId("rerank-choice").hidden) request.rerank = RERANK;
  return { ...request, explain: true, highlight: true };
}

async function search({ remember: keeps = true } = {}) {
  if (!index() || !(picture.found || byId("query").value.trim())) return;
  const wanted = asked();
  if (wanted.mode === "lexical") delete wanted.adapter;
  if (keeps && wanted.query) remember(wanted);
  const request = forTexts(index(), wanted);
  running?.abort();
  const own = (running = new AbortController());
  if (request.query !== last?.request.query) answer.clear();
  tellTrouble(null);
  tellStatus(() => say("searching"));
  byId("results").setAttribute("aria-busy", "true");
  await guarded(async () => {
    const started = performance.now();
    const reply = await call("POST", "/v1/search", request, own.signal);
    const marks = new Marks(reply, announce);
    last = { request, reply, base: null, ms: Math.round(performance.now() - started), marks };
    draw();
    await Promise.all([pictures.find(index(), wanted, picture.offered, own.signal), compare(own.signal)]);
  });
  if (running === own) byId("results").setAttribute("aria-busy", "false");
}

/** Search by a picture instead of words, until there are words again. */
async function searchBy(file) {
  await guarded(async () => {
    await picture.take(file, index().model);
    await search();
  });
}

async function compare(signal) {
  const { request } = last;
  if (!byId("compare").checked || !comparable() || request.vector || obstacle(index(), request)) return;
  if (!last.reply.hits.length) return;
  last.base = await askBase(index(), last.request, last.reply, signal);
  draw();
}

async function askAnswer() {
  if (answer.busy) {
    answer.stop();
    return;
  }
  if (!index() || !byId("query").value.trim()) return;
  const request = asked();
  tellTrouble(null);
  byId("ask-answer").textContent = say("answer_stop");
  const { query, index: name, adapter: model, filter, rerank } = request;
  await guarded(() => answer.ask({ query, index: name, model, filter, rerank }));
  byId("ask-answer").textContent = say("answer");
}

/** Do something that calls the service: what goes wrong is told, a key that is missing is asked for. */
async function guarded(work) {
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error instanceof Refused && error.status === 401) {
      await askForKey(error);
      await connect();
      return;
    }
    tellTrouble(error);
    if (!last) tellStatus(() => "");
  }
}

// Showing

function draw() {
  const { request, reply, base, ms, marks } = last;
  const compares = byId("compare").checked && comparable();
  const why = compares ? (request.vector ? "compare_picture" : obstacle(index(), request)) : null;
  const both = compares && !why && reply.hits.length > 0;
  byId("columns").hidden = !reply.hits.length;
  byId("columns").classList.toggle("single", !both);
  byId("shown").hidden = byId("base-column").hidden = !both;
  byId("adapted-title").textContent = title(request, reply);
  byId("base-title").textContent = say("base");
  marks.groups.clear();
  const changes = base ? reply.hits.map((hit, place) => move(base.ranks.get(hit.id), place + 1)) : [];
  list("adapted-list", reply.hits, { changes, depth: base?.depth });
  byId("adapted-note").textContent = base ? summary(changes) : "";
  const ranks = new Map(reply.hits.map((hit, place) => [hit.id, place + 1]));
  const went = base?.hits.map((hit, place) => move(place + 1, ranks.get(hit.id))) ?? [];
  list("base-list", base?.hits ?? [], { changes: went, depth: SHOWN });
  byId("base-note").textContent = !base ? say("comparing") : base.pooled ? say("pool_note", { n: base.depth }) : "";
  drawRoute(byId("route"), reply.route);
  const found = say("found", { n: reply.hits.length });
  tellStatus(() => {
    if (!reply.hits.length) return say(filters.text ? "nothing_filtered" : "nothing");
    return [say("found_in", { found, ms: number(ms) }), why ? say(why) : ""].filter(Boolean).join(" · ");
  });
  settle();
}

function title(request, reply) {
  if (reply.route) return `${say("routed")} · ${Object.keys(reply.route.weights).join(" + ")}`;
  const used = reply.acclimate?.model;
  if (!comparable() || !used || request.mode === "lexical") return say("title");
  return `${say("adapted")} · ${used}`;
}

function list(name, hits, { changes, depth }) {
  const { marks } = last;
  const feedback = Boolean(capabilities.features.feedback && last.request.query);
  const items = hits.map((hit, place) =>
    card(hit, place + 1, {
      change: changes[place],
      depth,
      actions: feedback ? marks.buttons(hit.id) : null,
      opened: (isOpen) => {
        if (isOpen && feedback && name === "adapted-list") marks.opened(hit.id);
        settle();
      },
    }),
  );
  byId(name).replaceChildren(...items);
  if (items.length) makeCurrent(items[0]);
}

/** What depends on the layout: which texts are cut, and the lines between the rankings. */
function settle() {
  for (const item of document.querySelectorAll(".hit:not(.opened)")) {
    const text = item.querySelector(".text");
    item.querySelector(".open").hidden = text.scrollHeight <= text.clientHeight + 1;
  }
  drawMoves(byId("moves"), byId("base-list"), byId("adapted-list"));
}

/** Light up a document in both rankings, with the line between. */
function light(id) {
  for (const one of document.querySelectorAll(".lit")) one.classList.remove("lit");
  if (!id) return;
  for (const one of document.querySelectorAll("#columns [data-id]")) {
    if (one.dataset.id === id) one.classList.add("lit");
  }
}

function tellStatus(said) {
  status = said;
  byId("state").textContent = said();
}

function tellTrouble(error) {
  const place = byId("trouble");
  place.hidden = error === null;
  place.replaceChildren();
  if (error === null) return;
  place.append(h("p", {}, say("failed", { message: error.message })));
  if (error.fix) place.append(h("p", { class: "note" }, error.fix));
}

function announce(text) {
  byId("said").textContent = text;
}

async function openService() {
  await guarded(async () => {
    const [fresh, models] = await Promise.all([call("GET", "/v1/capabilities"), call("GET", "/v1/models")]);
    drawService(byId("service"), fresh, models.data);
    byId("service-dialog").showModal();
  });
}

// Listening

function listenToControls() {
  byId("search").addEventListener("submit", async (event) => {
    event.preventDefault();
    await connected;
    picture.clear();
    search();
  });
  byId("ask-answer").addEventListener("click", askAnswer);
  byId("clear-picture").addEventListener("click", () => {
    picture.clear();
    byId("query").focus();
    search();
  });
  byId("modes").addEventListener("change", changed);
  byId("adapter").addEventListener("change", changed);
  byId("rerank").addEventListener("change", changed);
  byId("index").addEventListener("change", () => {
    fillIndex();
    changed();
  });
  byId("compare").checked = kept("localStorage", "acclimate-compare") !== "no";
  byId("compare").addEventListener("change", () => {
    keep("localStorage", "acclimate-compare", byId("compare").checked ? null : "no");
    changed();
  });
  byId("clear-filters").addEventListener("click", () => {
    filters.clear();
    changed();
  });
  byId("shown").addEventListener("change", (event) => {
    byId("columns").dataset.shown = event.target.value;
    settle();
  });
  byId("open-service").addEventListener("click", openService);
  byId("open-help").addEventListener("click", () => byId("help-dialog").showModal());
  byId("theme").addEventListener("click", nextTheme);
  byId("language").addEventListener("click", switchLanguage);
  listenToKeys();
  addEventListener("popstate", () => capabilities && restore(new URLSearchParams(location.hash.slice(1))));
  for (const kind of ["mouseover", "focusin"]) {
    byId("columns").addEventListener(kind, (event) => light(event.target.closest(".hit")?.dataset.id));
  }
  byId("columns").addEventListener("mouseleave", () => light(null));
  new ResizeObserver(settle).observe(byId("columns"));
}

function sayAgain() {
  showTheme();
  byId("language").lang = document.documentElement.lang === "en" ? "zh-Hans" : "en";
  byId("language").setAttribute("aria-label", say("switch_language"));
  if (capabilities) {
    const adapter = byId("adapter").value;
    const own = byId("adapter").options[0];
    if (own) own.textContent = say("adapter_own", { name: index().model });
    for (const option of byId("adapter").options) {
      if ((capabilities.features.route ?? []).includes(option.value)) option.textContent = say(`route_${option.value}`);
    }
    byId("adapter").value = adapter;
  }
  if (last) draw();
  else byId("state").textContent = status();
}

translate();
sayAgain();
onLanguage(sayAgain);
listenToControls();
listen();
const connected = connect();
await connected;
