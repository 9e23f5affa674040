// Keys: "/" into the search box, arrows along the results and between the rankings, and what to do with a result.
//
// The letters work only while a result has the focus, so that nobody marks a document by typing elsewhere.

import { byId } from "./dom.js";

const LISTS = ["base-list", "adapted-list"];

/** Listen to the keys of the whole page. */
export function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.isComposing) return;
    const item = event.target.closest?.(".hit");
    if (item && handled(event, item)) event.preventDefault();
    else if (event.key === "/" && !isField(event.target) && !document.querySelector("dialog[open]")) {
      byId("query").select();
      byId("query").focus();
      event.preventDefault();
    }
  });
  byId("query").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" || event.isComposing) return;
    if (focusItem(list("adapted-list").children[0])) event.preventDefault();
  });
  document.addEventListener("focusin", (event) => {
    const item = event.target.closest?.(".hit");
    if (item) makeCurrent(item);
  });
}

/** Let the Tab key lead to this result of its ranking, and to its buttons, but to no other. */
export function makeCurrent(item) {
  for (const other of item.parentElement.children) {
    const place = other === item ? 0 : -1;
    for (const one of [other, ...other.querySelectorAll("button")]) one.tabIndex = place;
  }
}

/** Go to a document of the adapted ranking, or of the other one. */
export function goTo(id) {
  for (const name of [...LISTS].reverse()) {
    const item = [...list(name).children].find((one) => one.dataset.id === id);
    if (item && focusItem(item)) {
      item.classList.remove("found");
      void item.offsetWidth; // the animation begins anew
      item.classList.add("found");
      return true;
    }
  }
  return false;
}

function handled(event, item) {
  const { key, target } = event;
  if (key === "ArrowDown") return focusItem(item.nextElementSibling);
  if (key === "ArrowUp") return focusItem(item.previousElementSibling) || back();
  if (key === "ArrowLeft") return focusOther(item, "base-list");
  if (key === "ArrowRight") return focusOther(item, "adapted-list");
  if (key === "Escape") return back();
  if (key === "Enter" && target === item) return press(item.querySelector(".open"));
  if (key === "r") return press(item.querySelector(".mark.relevant"));
  if (key === "n") return press(item.querySelector(".mark.not_relevant"));
  return false;
}

/** The same document in the other ranking, or the one at the same place. */
function focusOther(item, name) {
  if (item.parentElement.id === name) return false;
  const items = [...list(name).children];
  const place = [...item.parentElement.children].indexOf(item);
  return focusItem(items.find((one) => one.dataset.id === item.dataset.id) ?? items[Math.min(place, items.length - 1)]);
}

function focusItem(item) {
  if (!item?.checkVisibility()) return false;
  item.focus({ preventScroll: true });
  item.scrollIntoView({ block: "nearest" });
  return true;
}

function press(button) {
  if (!button?.checkVisibility()) return false;
  button.click();
  return true;
}

function back() {
  byId("query").focus();
  return true;
}

const list = (name) => byId(name);
const isField = (element) => element.closest("input, select, textarea") !== null;
