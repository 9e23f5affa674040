// Light, dark, or as the system is; `theme.js` applies what was chosen before the page is painted.

import { byId, keep } from "./dom.js";
import { say } from "./words.js";

const THEMES = ["system", "light", "dark"];
const now = () => document.documentElement.dataset.theme ?? "system";

/** Name the theme on its button. */
export function showTheme() {
  byId("theme").textContent = say("theme", { name: say(`theme_${now()}`) });
}

/** Take the next theme. */
export function nextTheme() {
  const next = THEMES[(THEMES.indexOf(now()) + 1) % THEMES.length];
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  keep("localStorage", "acclimate-theme", next === "system" ? null : next);
  showTheme();
}
