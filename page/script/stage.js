// The ribbon of a walk: lanes for pods and nodes, a stop for each hop, the packet that moves along.

const LANE_TOP = 30, OUT_ROW = 66, BACK_ROW = 122, LANE_HEIGHT = 128;

/**
 * The lanes of a walk, from left to right: name, kind, and the hops of both directions in it. The way out makes a lane
 * whenever it enters a pod or a node, also one where it was before; the way back uses the last lane of that name.
 */
function lanesOf(walk) {
  const lanes = [];
  const kindOf = (hop) => (hop.where === hop.node ? "node" : "pod");
  const add = (hop) => {
    lanes.push({ name: hop.where, kind: kindOf(hop), out: [], back: [] });
    return lanes.at(-1);
  };
  walk.hops.forEach((hop, number) => {
    if (hop.direction !== "out") return;
    const last = lanes.at(-1);
    (last && last.name === hop.where ? last : add(hop)).out.push(number);
  });
  walk.hops.forEach((hop, number) => {
    if (hop.direction === "back") (lanes.findLast((lane) => lane.name === hop.where) || add(hop)).back.unshift(number);
  });
  return lanes;
}

/** Draws the ribbon into `host`. Returns how to show a hop: a function of its number. */
function ribbon(host, walk, onPick) {
  const narrow = host.clientWidth < 620;
  const lanes = lanesOf(walk);
  const step = narrow ? 27 : 96, pad = narrow ? 4 : 8;
  const places = new Map();
  const parts = [];
  let x = 0;
  const hasBack = walk.hops.some((hop) => hop.direction === "back");
  const height = LANE_TOP + (hasBack ? LANE_HEIGHT : LANE_HEIGHT - 50);
  for (const lane of lanes) {
    const slots = Math.max(lane.out.length, lane.back.length, narrow ? 2 : 1);
    const width = slots * step + 2 * pad;
    parts.push(make("rect", { class: `lane ${lane.kind}-lane`, x, y: LANE_TOP, width, height: height - LANE_TOP, rx: 8 }));
    parts.push(make("text", { class: "lane-name", x: x + width / 2, y: 14 }, fitted(shortName(lane, narrow), width, narrow ? 6.2 : 8.4)));
    if (!narrow) parts.push(make("text", { class: "lane-kind", x: x + width / 2, y: 27 }, lane.kind));
    const put = (hops, y) => hops.forEach((number, slot) => {
      places.set(number, { x: x + pad + step * (slot + 0.5 + (slots - hops.length) / 2), y });
    });
    put(lane.out, OUT_ROW);
    put(lane.back, BACK_ROW);
    x += width + (narrow ? 4 : 10);
  }
  const numbers = walk.hops.map((_, number) => number);
  const tracks = numbers.slice(1).map((number) => {
    const from = places.get(number - 1), to = places.get(number);
    const wrapped = Boolean(walk.hops[number - 1].packet.outerSource && walk.hops[number].packet.outerSource);
    const turn = from.y === to.y ? "" : `C${from.x + 34} ${from.y} ${to.x + 34} ${to.y} `;
    return make("path", { class: `track${wrapped ? " wrapped" : ""}`, d: turn ? `M${from.x} ${from.y}${turn}${to.x} ${to.y}` : `M${from.x} ${from.y}L${to.x} ${to.y}` });
  });
  const stops = numbers.map((number) => {
    const { x: at, y } = places.get(number), hop = walk.hops[number];
    return make("g", { onclick: () => onPick(number) },
      make("title", {}, `${number + 1}. ${hop.kind}: ${hop.sentence}`),
      make("circle", { class: `stop ${hop.state.replace(" ", "-")}`, cx: at, cy: y, r: narrow ? 6 : 7 }),
      hop.state === "failed" ? make("text", { class: "sign", x: at, y: y - 12 }, "✕") : null,
      narrow ? null : make("text", { class: "stop-name", x: at, y: y + 24 }, hop.kind));
  });
  const packet = make("g", { class: "packet" },
    make("rect", { class: "outer", x: -19, y: -15, width: 38, height: 30, rx: 5 }),
    make("rect", { class: "inner", x: -13, y: -9, width: 26, height: 18, rx: 3 }),
    make("text", { y: 3.5 }, "ttl"));
  const labels = narrow ? [] : [
    make("text", { class: "direction", x: 8, y: OUT_ROW - 20 }, "the way out →"),
    hasBack ? make("text", { class: "direction", x: 8, y: BACK_ROW - 14 }, "← the way back") : null,
  ].filter(Boolean);
  const drawing = make("svg", { viewBox: `0 -2 ${Math.max(x, narrow ? 0 : host.clientWidth)} ${height + 6}`, role: "img", "aria-label": `The way from ${walk.source} to ${walk.target}, ${walk.hops.length} hops` },
    parts, labels, tracks, stops, packet);
  host.replaceChildren(drawing);
  return (current) => {
    tracks.forEach((track, number) => track.classList.toggle("done", number < current));
    stops.forEach((stop, number) => {
      stop.querySelector(".stop").classList.toggle("done", number <= current);
      stop.querySelector(".stop-name")?.classList.toggle("here", number === current);
    });
    const { x: at, y } = places.get(current), { packet: now } = walk.hops[current];
    packet.style.transform = `translate(${at}px, ${y}px)`;
    packet.querySelector(".outer").style.display = now.outerSource ? "" : "none";
    packet.querySelector("text").textContent = now.ttl;
  };
}

const fitted = (words, width, size) => {
  const most = Math.floor(width / size);
  return words.length <= most ? words : `${words.slice(0, Math.max(most - 6, 1))}…${words.slice(-5)}`;
};

const shortName = (lane, narrow) => narrow ? lane.kind : lane.name.split("/").pop();
