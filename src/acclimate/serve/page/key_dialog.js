// Asking for the key that a service wants.

import { key } from "./api.js";
import { byId } from "./dom.js";
import { say } from "./words.js";

/**
 * Open the dialog, and wait until a key was given.
 * @param {Refused} error that the service said without it
 */
export function askForKey(error) {
  const dialog = byId("key-dialog");
  const input = byId("key");
  byId("key-problem").textContent = key.get() === null ? "" : error.status === 401 ? say("key_wrong") : error.message;
  input.value = "";
  if (!dialog.open) dialog.showModal();
  input.focus();
  return new Promise((given) => {
    const take = (event) => {
      event.preventDefault();
      key.set(input.value.trim());
      dialog.close();
      byId("query").focus();
      given();
    };
    byId("key-form").addEventListener("submit", take, { once: true });
  });
}

/** A dialog that cannot be done without is not closed by Escape; a key can be forgotten. */
export function listenToKeys() {
  byId("key-dialog").addEventListener("cancel", (event) => event.preventDefault());
  byId("forget-key").addEventListener("click", () => {
    key.set(null);
    location.reload();
  });
}
