// Which adapters a query was led to, with what weight, and why.

import { h } from "./dom.js";
import { current, has, say } from "./words.js";

/** Draw the route of a reply; nothing where it has none. */
export function drawRoute(place, route) {
  place.hidden = !route;
  place.replaceChildren();
  if (!route) return;
  const share = new Intl.NumberFormat(current(), { style: "percent" });
  const rows = Object.entries(route.weights ?? {}).sort(([, one], [, other]) => other - one);
  const distances = route.distances ?? {};
  place.append(
    h(
      "p",
      { class: "route-head" },
      h("strong", {}, say("route")),
      " ",
      has(`route_${route.mode}`) ? say(`route_${route.mode}`) : route.mode,
      route.reason ? h("span", { class: "note" }, ` — ${route.reason}`) : null,
    ),
    h(
      "ul",
      { class: "weights", "aria-label": say("route_weights") },
      rows.map(([name, weight]) => {
        const bar = h("span", { class: "bar", "aria-hidden": "true" }, h("span", {}));
        bar.firstChild.style.width = `${Math.max(0, Math.min(1, weight)) * 100}%`;
        const far = distances[name];
        const distance = typeof far === "number" ? say("route_distance", { distance: far.toFixed(3) }) : null;
        return h(
          "li",
          {},
          h("span", { class: "name" }, name),
          bar,
          h("span", { class: "share" }, share.format(weight)),
          distance ? h("span", { class: "note" }, distance) : null,
        );
      }),
    ),
  );
}
