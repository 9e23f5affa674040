// Filters on metadata: fields with few values as buttons, numbers by their bounds, the rest as an expression.

import { h } from "./dom.js";
import { onLanguage, say } from "./words.js";

const RESERVED = new Set(["and", "or", "not", "in", "exists", "true", "false"]);

export class Filters {
  /**
   * @param {HTMLElement} place where the fields are shown
   * @param {HTMLInputElement} expression
   * @param {() => void} changed called after each change
   */
  constructor(place, expression, changed) {
    this.place = place;
    this.expression = expression;
    this.changed = changed;
    this.fields = [];
    this.clear();
    expression.addEventListener("change", changed);
    onLanguage(() => this.draw());
  }

  /** Show the fields of an index; what was chosen of another one is forgotten. */
  show(fields) {
    this.fields = fields.filter((field) => !field.name.includes("`"));
    this.values.clear();
    this.bounds.clear();
    const number = this.fields.find((field) => field.kind === "number");
    const text = this.fields.find((field) => field.kind === "text" && field.values.length);
    const examples = [
      number && `${quoted(number.name)} >= ${number.least}`,
      text && `${quoted(text.name)} = ${JSON.stringify(text.values[0])}`,
    ];
    this.expression.placeholder = examples.filter(Boolean).join(" and ") || 'exists(year) and year >= 2020';
    this.draw();
  }

  /** Forget all that was chosen. */
  clear() {
    this.values = new Map();
    this.bounds = new Map();
    this.expression.value = "";
    this.draw();
  }

  /** How many conditions there are. */
  get count() {
    return this.conditions().length;
  }

  /** The filter as `/v1/search` takes it; undefined where there is none. */
  get text() {
    const found = this.conditions();
    return found.length ? found.join(" and ") : undefined;
  }

  conditions() {
    const found = [];
    for (const [name, chosen] of this.values) {
      const values = [...chosen].map((value) => JSON.stringify(value));
      if (values.length === 1) found.push(`${quoted(name)} = ${values[0]}`);
      else if (values.length) found.push(`${quoted(name)} in (${values.join(", ")})`);
    }
    for (const [name, [least, most]] of this.bounds) {
      if (least !== "") found.push(`${quoted(name)} >= ${least}`);
      if (most !== "") found.push(`${quoted(name)} <= ${most}`);
    }
    const own = this.expression.value.trim();
    if (own) found.push(found.length ? `(${own})` : own);
    return found;
  }

  draw() {
    const shown = this.fields.filter((field) => field.kind === "number" || field.values.length > 1);
    this.place.replaceChildren(
      ...shown.map((field) =>
        h(
          "div",
          { class: "field", role: "group", "aria-label": field.name },
          h("span", { class: "name" }, field.name),
          field.kind === "number" && field.values.length !== 2 ? this.range(field) : this.choice(field),
        ),
      ),
    );
  }

  choice(field) {
    const chosen = this.values.get(field.name) ?? new Set();
    const toggle = (event, value) => {
      if (!chosen.delete(value)) chosen.add(value);
      if (chosen.size) this.values.set(field.name, chosen);
      else this.values.delete(field.name);
      event.currentTarget.setAttribute("aria-pressed", String(chosen.has(value)));
      this.changed();
    };
    return field.values.map((value) =>
      h(
        "button",
        {
          type: "button",
          class: "chip",
          "aria-pressed": String(chosen.has(value)),
          onclick: (event) => toggle(event, value),
        },
        String(value),
      ),
    );
  }

  range(field) {
    const bounds = this.bounds.get(field.name) ?? ["", ""];
    const input = (place, label, hint) =>
      h("input", {
        type: "number",
        step: "any",
        "aria-label": say(label, { name: field.name }),
        placeholder: hint,
        value: bounds[place],
        onchange: (event) => {
          bounds[place] = event.target.value;
          this.bounds.set(field.name, bounds);
          this.changed();
        },
      });
    return [
      input(0, "filter_least", field.least),
      h("span", { class: "to", "aria-hidden": "true" }, "–"),
      input(1, "filter_most", field.most),
    ];
  }
}

/** A field's name as the language of filters reads it. */
function quoted(name) {
  return /^[\p{L}_][\p{L}\p{N}_.-]*$/u.test(name) && !RESERVED.has(name.toLowerCase()) ? name : `\`${name}\``;
}
