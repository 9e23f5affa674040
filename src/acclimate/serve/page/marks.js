// Marks of relevance, and openings of documents, for the service's feedback.

import { call } from "./api.js";
import { h } from "./dom.js";
import { say } from "./words.js";

const KINDS = ["relevant", "not_relevant"];

/** The marks of one search. */
export class Marks {
  /**
   * @param {Object} reply to the search; a document that only the base found is marked by the query alone
   * @param {(text: string) => void} tell says what became of a mark
   */
  constructor(reply, tell) {
    this.reply = reply;
    this.shown = new Set(reply.hits.map((hit) => hit.id));
    this.tell = tell;
    this.given = new Map();
    this.groups = new Map();
  }

  /** The two buttons of a document; those of the same document in the other ranking change with them. */
  buttons(id) {
    const group = KINDS.map((mark) =>
      h(
        "button",
        {
          type: "button",
          class: `mark ${mark}`,
          tabindex: -1,
          "data-mark": mark,
          "aria-pressed": "false",
          onclick: () => this.give(id, mark),
        },
        h("span", { "aria-hidden": "true" }, mark === "relevant" ? "✓ " : "✕ "),
        say(mark),
      ),
    );
    this.groups.set(id, [...(this.groups.get(id) ?? []), ...group]);
    return group;
  }

  /** Store a mark. */
  async give(id, mark) {
    try {
      await this.send(id, mark);
    } catch (error) {
      this.tell(say("not_marked", { reason: error.message }));
      return;
    }
    this.given.set(id, mark);
    for (const button of this.groups.get(id)) {
      button.setAttribute("aria-pressed", String(button.dataset.mark === mark));
    }
    this.tell(say("marked", { mark: say(mark) }));
  }

  /** Say that a document was opened; it is not worth a word where that fails. */
  opened(id) {
    this.send(id, "click").catch(() => {});
  }

  async send(id, mark) {
    const { query, index, impression_id: impression } = this.reply;
    const one = { impression_id: this.shown.has(id) ? impression : null, query, id, mark, user: null };
    const { refused } = await call("POST", "/v1/feedback", { index, marks: [one] });
    if (refused.length) throw new Error(refused[0].reason);
  }
}
