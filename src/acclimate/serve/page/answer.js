// The answer to a question out of the documents, as it is written, with citations that lead to their documents.

import { events } from "./api.js";
import { h } from "./dom.js";
import { marked } from "./results.js";
import { number, say } from "./words.js";

const SNIPPET = 280;

export class AnswerPane {
  /**
   * @param {HTMLElement} place
   * @param {(id: string) => boolean} goTo shows a document among the results; false where it is not there
   */
  constructor(place, goTo) {
    this.place = place;
    this.goTo = goTo;
    this.running = null;
  }

  /** Whether an answer is being written. */
  get busy() {
    return this.running !== null;
  }

  /** Give up what is being written, and show nothing. */
  clear() {
    this.stop();
    this.place.hidden = true;
    this.place.replaceChildren();
  }

  stop() {
    this.running?.abort();
    this.running = null;
  }

  /**
   * Ask for an answer and show it.
   * @throws {Refused}
   */
  async ask(request) {
    this.stop();
    const running = (this.running = new AbortController());
    const text = h("p", { class: "prose", dir: "auto" });
    const state = h("p", { class: "note", role: "status" }, say("answering"));
    this.place.replaceChildren(h("h2", {}, say("answer_title")), text, state);
    this.place.hidden = false;
    this.place.setAttribute("aria-busy", "true");
    try {
      for await (const event of events("/v1/answer", { ...request, stream: true }, running.signal)) {
        if (event.error) throw new Error(event.error.message);
        if (event.delta) text.append(event.delta);
        if (event.done) this.finish(event.done, text, state);
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        if (this.running === running) this.clear();
        throw error;
      }
      state.textContent = say("stopped");
    } finally {
      this.place.setAttribute("aria-busy", "false");
      if (this.running === running) this.running = null;
    }
  }

  finish(done, text, state) {
    if (!done.answered) {
      text.replaceChildren(done.answer || say("answer_none"));
      this.place.classList.add("unanswered");
    } else {
      this.place.classList.remove("unanswered");
      text.replaceChildren(...this.cited(done.answer, done.citations));
    }
    const sources = done.citations.map((one) => this.source(one));
    if (sources.length) {
      state.before(h("h3", {}, say("answer_sources")), h("ol", { class: "sources" }, sources));
    }
    state.textContent = [usage(done), done.struck ? say("answer_struck", { n: done.struck }) : ""]
      .filter(Boolean)
      .join(" · ");
  }

  /** The answer, with every [1] of a citation as a button. */
  cited(answer, citations) {
    const known = new Map(citations.map((one) => [String(one.number), one]));
    return answer.split(/(\[\d+\])/).map((part) => {
      const one = known.get(part.slice(1, -1));
      if (!one || !part.startsWith("[")) return part;
      return h(
        "button",
        {
          type: "button",
          class: "cite",
          "aria-label": say("citation", { number: one.number }),
          title: one.id,
          onclick: () => this.show(one),
        },
        String(one.number),
      );
    });
  }

  source(one) {
    const short = Array.from(one.text);
    const snippet = short.length > SNIPPET ? `${short.slice(0, SNIPPET).join("")}…` : one.text;
    return h(
      "li",
      { value: one.number, "data-source": one.id },
      h("button", { type: "button", class: "link", dir: "auto", onclick: () => this.show(one) }, one.id),
      h("p", { dir: "auto" }, marked(snippet, [])),
    );
  }

  /** Lead to a citation's document: among the results, or else among the sources. */
  show(one) {
    if (this.goTo(one.id)) return;
    const item = [...this.place.querySelectorAll("[data-source]")].find((row) => row.dataset.source === one.id);
    item.scrollIntoView({ block: "center" });
    item.querySelector("button").focus();
  }
}

function usage(done) {
  const { prompt_tokens: prompt, completion_tokens: completion } = done.usage ?? {};
  if (prompt === undefined) return done.model ?? "";
  return say("answer_usage", { model: done.model, prompt: number(prompt), completion: number(completion) });
}
