// The pictures of an index, beside its texts: a strip of thumbnails, each with its name.
//
// Vectors of pictures lie near each other and would crowd out the texts, so there are two searches. A thumbnail is
// fetched with the user's key, and shown from memory.

import { call, fetchBlob } from "./api.js";
import { byId, h } from "./dom.js";
import { onLanguage, say } from "./words.js";

const SHOWN = 12;
const ARE_PICTURES = "exists(picture) and exists(projection)";
const BESIDE = { mode: "dense", top_k: SHOWN, explain: false, highlight: false, impression: false };

/** A request for the texts of an index: where it holds no pictures, the same. */
export function forTexts(index, request) {
  return index.pictures ? { ...request, filter: both(`not (${ARE_PICTURES})`, request.filter) } : request;
}

export class Pictures {
  /**
   * @param {HTMLElement} place the section with a list
   * @param {(file: Blob) => void} chosen is called with a picture that shall be searched by
   */
  constructor(place, chosen) {
    this.place = place;
    this.list = place.querySelector("ul");
    this.chosen = chosen;
    this.urls = [];
    onLanguage(() => {
      for (const button of this.list.querySelectorAll("button")) button.title = say("picture_search");
    });
  }

  /**
   * Search and show the pictures that answer a request.
   * @param {Object} index of `/v1/capabilities`
   * @param {Object} request as it was before `forTexts`
   * @param {boolean} choosable whether the service searches by pictures
   * @throws {Refused}
   */
  async find(index, request, choosable, signal) {
    if (!index.pictures) {
      this.clear();
      return;
    }
    const { query, vector, space, index: name, adapter } = request;
    const asked = { query, vector, space, index: name, adapter, ...BESIDE, filter: both(ARE_PICTURES, request.filter) };
    const { hits } = await call("POST", "/v1/search", asked, signal);
    this.clear();
    this.list.tabIndex = choosable ? -1 : 0; // so that it can be scrolled by keys where nothing in it has the focus
    this.list.replaceChildren(...hits.map((hit) => this.item(hit, choosable)));
    this.place.hidden = !hits.length;
    await Promise.all(hits.map((hit, number) => this.load(hit, this.list.children[number], name, signal)));
  }

  /** Show none. */
  clear() {
    for (const url of this.urls) URL.revokeObjectURL(url);
    this.urls = [];
    this.list.replaceChildren();
    this.place.hidden = true;
  }

  item(hit, choosable) {
    const file = hit.metadata.file ?? "";
    const parts = [
      h("span", { class: "frame" }, h("img", { alt: "" })),
      h("span", { class: "of", dir: "auto" }, hit.text),
      file && file !== hit.text ? h("span", { class: "note", dir: "auto" }, ending(file)) : null,
    ];
    if (!choosable) return h("li", { "data-id": hit.id }, h("div", { class: "picture" }, parts));
    const button = h("button", { type: "button", class: "picture", title: say("picture_search"), disabled: true }, parts);
    return h("li", { "data-id": hit.id }, button);
  }

  /** Put a picture into its item; one that is gone leaves its name. */
  async load(hit, item, index, signal) {
    let blob;
    try {
      blob = await fetchBlob(`/v1/pictures/${hit.metadata.picture}?index=${encodeURIComponent(index)}`, signal);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      item.classList.add("gone");
      return;
    }
    if (!item.isConnected) return;
    const url = URL.createObjectURL(blob);
    this.urls.push(url);
    item.querySelector("img").src = url;
    const button = item.querySelector("button");
    if (!button) return;
    button.disabled = false;
    button.addEventListener("click", () => this.chosen(blob));
  }
}

/** A file's name and its folder's: of a longer path, only the end tells one picture from another. */
function ending(file) {
  const parts = file.split(/[\\/]+/);
  return parts.length > 2 ? `…/${parts.slice(-2).join("/")}` : file;
}

const both = (one, other) => (other ? `${one} and (${other})` : one);
