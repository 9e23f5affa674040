// A picture as the query: dropped on the page, pasted, or chosen; scaled down here, and encoded by the service.

import { call } from "./api.js";
import { byId } from "./dom.js";

const SIDE = 512;
const SHOWN = 96;
const QUALITY = 0.92;

/** The picture that is searched by, if there is one. */
export class Picture {
  /** @param {(file: File) => void} given is called with a picture that somebody drops, pastes or chooses */
  constructor(given) {
    /** Its vector and the space that this lies in; null where words are the query. */
    this.found = null;
    this.offered = false;
    byId("picture-file").addEventListener("change", (event) => {
      if (event.target.files[0]) given(event.target.files[0]);
      event.target.value = "";
    });
    byId("choose-picture").addEventListener("click", () => byId("picture-file").click());
    for (const [kind, held] of Object.entries({ dragover: "dataTransfer", drop: "dataTransfer", paste: "clipboardData" })) {
      document.addEventListener(kind, (event) => {
        const items = [...(event[held]?.items ?? [])].filter((item) => item.kind === "file");
        if (!this.offered || !items.length) return;
        event.preventDefault();
        const file = kind === "dragover" ? null : items[0].getAsFile();
        if (file) given(file);
      });
    }
  }

  /** Show or hide what a picture is given by. */
  offer(is) {
    this.offered = is;
    byId("choose-picture").hidden = !is;
    if (!is) this.clear();
  }

  /**
   * Encode a picture and show it beside the search box.
   * @throws {Refused} by the service
   */
  async take(file, model) {
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    const reply = await call("POST", "/v1/embeddings", { model, input: [{ image: scaled(bitmap) }] });
    this.found = { vector: reply.data[0].embedding, space: reply.acclimate.space };
    draw(byId("picture"), bitmap, SHOWN);
    byId("picture-given").hidden = false;
  }

  clear() {
    this.found = null;
    byId("picture-given").hidden = true;
  }
}

function scaled(bitmap) {
  const canvas = document.createElement("canvas");
  draw(canvas, bitmap, SIDE);
  return canvas.toDataURL("image/jpeg", QUALITY);
}

/** Draw it with at most so many pixels on its shorter side; what is transparent is white. */
function draw(canvas, bitmap, side) {
  const scale = Math.min(1, side / Math.min(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}
