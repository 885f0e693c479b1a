// The dependency graph: zoom, move, find, follow.

const graph = { svg: null, boxes: [], elements: [], whole: null, view: null, hits: [], hit: -1, link: -1 };

async function startOrder() {
  graph.svg = byId("graph").querySelector("svg");
  if (!graph.svg) return;
  const { width, height } = graph.svg.viewBox.baseVal;
  graph.whole = { x: 0, y: 0, width, height };
  graph.svg.removeAttribute("width");
  graph.svg.removeAttribute("height");
  graph.elements = [...graph.svg.querySelectorAll(":scope > g")];
  graph.boxes = (await data("order")).boxes;
  const order = new Map(graph.elements.map((element) => [element.id, element]));
  graph.elements = graph.boxes.map((box) => order.get(box[6]));
  start();
  const host = byId("graph");
  byId("zoom-in").addEventListener("click", () => zoom(0.7));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 0.7));
  byId("zoom-fit").addEventListener("click", () => look({ ...graph.whole }));
  byId("chain-next").addEventListener("click", nextOnChain);
  host.addEventListener("wheel", onWheel, { passive: false });
  host.addEventListener("keydown", onGraphKey);
  graph.elements.forEach((element, number) => element.addEventListener("click", () => { if (!dragged) chooseBox(number); }));
  startDrag(host);
  byId("graph-search").addEventListener("input", find);
  byId("graph-search").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && graph.hits.length) { event.preventDefault(); nextHit(); }
  });
}

/** The first look: at a size that can be read, from the beginning. */
function start() {
  const shape = byId("graph").clientWidth / (byId("graph").clientHeight || 1);
  const height = Math.min(graph.whole.height, byId("graph").clientHeight * 1.05 || graph.whole.height);
  look({ x: 0, y: 0, width: height * shape, height });
}

function look(view) {
  graph.view = view;
  graph.svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
}

/** Zoom about a point, which is given as parts of the view. */
function zoom(factor, at = { x: 0.5, y: 0.5 }) {
  const { x, y, width, height } = graph.view;
  const most = Math.max(graph.whole.width / width, graph.whole.height / height) * 1.2;
  const by = Math.max(Math.min(factor, Math.max(most, 1)), 160 / width);
  look({ x: x + width * at.x * (1 - by), y: y + height * at.y * (1 - by), width: width * by, height: height * by });
}

function onWheel(event) {
  // Without Ctrl or Meta, the wheel scrolls the page until the graph has the focus.
  if (!event.ctrlKey && !event.metaKey && !byId("graph").contains(document.activeElement)) return;
  event.preventDefault();
  const box = byId("graph").getBoundingClientRect();
  zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height });
}

function onGraphKey(event) {
  const { view } = graph, way = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
  if (way) look({ ...view, x: view.x + view.width * way[0], y: view.y + view.height * way[1] });
  else if (event.key === "+" || event.key === "=") zoom(0.7);
  else if (event.key === "-") zoom(1 / 0.7);
  else if (event.key === "0") look({ ...graph.whole });
  else if (event.key === "Escape") chooseBox(-1);
  else return;
  event.preventDefault();
}

let dragged = false;

function startDrag(host) {
  let from = null;
  host.addEventListener("pointerdown", (event) => { from = { x: event.clientX, y: event.clientY, view: { ...graph.view } }; dragged = false; });
  addEventListener("pointermove", (event) => {
    if (!from) return;
    const scale = Math.max(from.view.width / host.clientWidth, from.view.height / host.clientHeight);
    const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
    if (Math.abs(dx) + Math.abs(dy) > 4) dragged = true;
    if (dragged) look({ ...from.view, x: from.view.x - dx * scale, y: from.view.y - dy * scale });
  });
  addEventListener("pointerup", () => { from = null; });
}

// --- choosing and finding ------------------------------------------------------------------------------------------

function reach(number, next) {
  const seen = new Set(), waiting = [number];
  while (waiting.length) for (const other of next(waiting.pop())) if (!seen.has(other)) { seen.add(other); waiting.push(other); }
  return seen;
}

function chooseBox(number) {
  const host = byId("graph");
  host.classList.toggle("chosen", number >= 0);
  graph.elements.forEach((element) => element.classList.remove("chosen", "before", "after", "hit"));
  if (number < 0) return;
  const [title, lines, room, wave, waits, onChain, urn] = graph.boxes[number];
  const direct = graph.boxes.map((box, other) => [box, other]).filter(([box]) => box[4].includes(number)).map(([, other]) => other);
  const before = reach(number, (n) => graph.boxes[n][4]);
  const after = reach(number, (n) => graph.boxes.map((box, m) => (box[4].includes(n) ? m : -1)).filter((m) => m >= 0));
  before.forEach((n) => graph.elements[n].classList.add("before"));
  after.forEach((n) => graph.elements[n].classList.add("after"));
  graph.elements[number].classList.add("chosen");
  const names = (numbers) => numbers.map((n) => graph.boxes[n][0]).join(", ") || "nothing";
  byId("graph-note").replaceChildren(
    make("p", {}, make("strong", {}, title), ` ${lines.join(", ")} (${room}, wave ${wave}${onChain ? ", on the longest chain" : ""})`),
    make("p", {}, make("span", { class: "dim" }, "Waits for "), names(waits), before.size > waits.length ? `; with all that is behind them ${before.size}` : ""),
    make("p", {}, make("span", { class: "dim" }, "Waited for by "), names(direct), after.size > direct.length ? `; ${after.size} in all` : ""),
    make("p", { class: "urn" }, make("code", {}, urn)));
}

/** Move the view to a box, at a size that can be read. */
function goTo(number) {
  const box = graph.elements[number].querySelector("rect"), host = byId("graph");
  const width = Math.min(graph.view.width, host.clientWidth * 1.15), height = width * host.clientHeight / host.clientWidth;
  const at = ["x", "y", "width", "height"].map((name) => Number(box.getAttribute(name)));
  look({ x: at[0] + at[2] / 2 - width / 2, y: at[1] + at[3] / 2 - height / 2, width, height });
}

function nextOnChain() {
  const chain = graph.boxes.map((box, number) => [box, number]).filter(([box]) => box[5]).sort((a, b) => a[0][3] - b[0][3]);
  if (!chain.length) return;
  graph.link = (graph.link + 1) % chain.length;
  chooseBox(chain[graph.link][1]);
  goTo(chain[graph.link][1]);
}

function find() {
  const words = byId("graph-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  chooseBox(-1);
  graph.hits = [];
  graph.hit = -1;
  if (words.length) {
    graph.hits = graph.boxes.map((box, number) => [[box[0], ...box[1], box[2], box[6]].join(" ").toLowerCase(), number])
      .filter(([text]) => words.every((word) => text.includes(word))).map(([, number]) => number);
    byId("graph").classList.toggle("chosen", graph.hits.length > 0);
    graph.hits.forEach((number) => graph.elements[number].classList.add("hit"));
    if (graph.hits.length) goTo(graph.hits[0]);
  }
  byId("graph-found").textContent = words.length ? `${graph.hits.length} found` : "";
}

function nextHit() {
  graph.hit = (graph.hit + 1) % graph.hits.length;
  chooseBox(graph.hits[graph.hit]);
  goTo(graph.hits[graph.hit]);
  byId("graph-found").textContent = `${graph.hit + 1} of ${graph.hits.length}`;
}
