// The drawing of the lab: choosing a node or a pod by pointer or keyboard.

const drawings = [...document.querySelectorAll("svg.topology")];
let chosen = null; // "node 3" or "pod 7"

const keyOf = (element) => element.dataset.pod !== undefined ? `pod ${element.dataset.pod}` : `node ${element.dataset.node}`;

function startNetwork() {
  for (const drawing of drawings) {
    const stops = [...drawing.querySelectorAll("[data-node], [data-pod]")];
    if (stops.length) stops[0].setAttribute("tabindex", "0");
    drawing.addEventListener("click", (event) => {
      const stop = event.target.closest("[data-node], [data-pod]");
      if (stop) choose(keyOf(stop));
    });
    drawing.addEventListener("keydown", (event) => onKey(event, drawing, stops));
  }
  document.querySelectorAll("[data-pick]").forEach((button) =>
    button.addEventListener("click", () => choose(`node ${button.dataset.pick}`, true)));
}

/** Arrow keys move to the nearest node or pod that way; Enter and Space choose. */
function onKey(event, drawing, stops) {
  const here = event.target.closest("[data-node], [data-pod]");
  if (!here) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    choose(keyOf(here), true);
    return;
  }
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!way) return;
  event.preventDefault();
  const from = centre(here);
  let best = null;
  for (const stop of stops) {
    if (stop === here) continue;
    const to = centre(stop);
    const along = (to.x - from.x) * way[0] + (to.y - from.y) * way[1];
    const aside = Math.abs((to.x - from.x) * way[1]) + Math.abs((to.y - from.y) * way[0]);
    if (along > 1 && (!best || along + 2 * aside < best.cost)) best = { stop, cost: along + 2 * aside };
  }
  if (best) {
    stops.forEach((stop) => stop.setAttribute("tabindex", stop === best.stop ? "0" : "-1"));
    best.stop.focus();
  }
}

/** A node counts by its upper edge, so that its pods are below it. */
function centre(stop) {
  const box = stop.querySelector("rect").getBoundingClientRect();
  return { x: box.left + box.width / 2, y: stop.dataset.node === undefined ? box.top + box.height / 2 : box.top };
}

/** Show the panel of a node or pod. `focus`: move the keyboard there. */
async function choose(key, focus) {
  chosen = key;
  for (const drawing of drawings) {
    drawing.querySelectorAll(".selected").forEach((old) => old.classList.remove("selected"));
    const [kind, number] = key.split(" ");
    drawing.querySelector(`[data-${kind}="${number}"]`)?.classList.add("selected");
  }
  await showPanel(key);
  const panel = byId("panel");
  const below = panel.getBoundingClientRect().top > innerHeight - 120;
  if (below) panel.scrollIntoView({ behavior: calm() ? "auto" : "smooth", block: "start" });
  if (focus) panel.focus({ preventScroll: !below });
}
