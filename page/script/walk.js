// The player of walks.

const HOP_MILLISECONDS = 3200;
const player = { walks: [], walk: null, hop: 0, show: null, timer: 0 };

async function startWalk() {
  if (!byId("player")) return;
  player.walks = await data("walks");
  byId("walk-choice").addEventListener("change", (event) => openWalk(Number(event.target.value)));
  const go = { first: () => 0, back: () => player.hop - 1, forward: () => player.hop + 1, last: () => player.walk.hops.length - 1 };
  for (const [id, target] of Object.entries(go)) byId(id).addEventListener("click", () => { pause(); showHop(target()); });
  byId("play").addEventListener("click", () => player.timer ? pause() : play());
  byId("player").addEventListener("keydown", (event) => {
    const target = { ArrowLeft: go.back, ArrowRight: go.forward, Home: go.first, End: go.last }[event.key];
    if (target) {
      event.preventDefault();
      pause();
      showHop(target());
    } else if (event.key === " " && event.target.tagName !== "BUTTON" && event.target.tagName !== "SUMMARY") {
      event.preventDefault();
      byId("play").click();
    }
  });
  let width = 0;
  new ResizeObserver(() => {
    const now = byId("stage").clientWidth < 620;
    if (now !== width && player.walk) redraw();
    width = now;
  }).observe(byId("stage"));
  openWalk(0);
}

function openWalk(number) {
  pause();
  player.walk = player.walks[number];
  const { walk } = player;
  byId("walk-ends").replaceChildren(
    make("code", {}, walk.source), ` (${walk.sourceAddress}) on ${walk.sourceNode} → `,
    make("code", {}, walk.target), destinationOf(walk), "  ",
    stateOf(walk.state), [walk.stopped && ` stops at the ${walk.stopped}`, walk.ping && ` ${walk.ping}`].filter(Boolean).join(";"),
    make("br"), make("code", {}, walk.command));
  byId("hops").replaceChildren(...walk.hops.map((hop) => make("li", {},
    make("strong", {}, hop.kind), ` ${hop.sentence} `, stateOf(hop.state),
    hop.checks.filter((check) => check.seen).map((check) => terminal(check.command, check.seen)))));
  redraw();
  showHop(0);
}

/** What follows the target's name: its address, and the node where the packet ends. */
function destinationOf(walk) {
  if (!walk.targetNode) return "";
  const endpoint = walk.endpoint ? `, endpoint ${walk.endpoint}` : "";
  return ` (${walk.targetAddress})${endpoint} on ${walk.targetNode}`;
}

function redraw() {
  player.show = ribbon(byId("stage"), player.walk, (number) => { pause(); showHop(number); });
  player.show(player.hop < player.walk.hops.length ? player.hop : 0);
}

function play() {
  if (player.hop >= player.walk.hops.length - 1) showHop(0);
  player.timer = setInterval(() => {
    if (player.hop >= player.walk.hops.length - 1) pause();
    else showHop(player.hop + 1);
  }, HOP_MILLISECONDS);
  label("Pause");
}

function pause() {
  clearInterval(player.timer);
  player.timer = 0;
  label("Play");
}

function label(words) {
  byId("play").textContent = words;
  byId("play").setAttribute("aria-label", words);
}

function showHop(number) {
  const { walk } = player, hops = walk.hops;
  player.hop = Math.max(0, Math.min(number, hops.length - 1));
  const hop = hops[player.hop], before = hops[player.hop - 1];
  player.show(player.hop);
  byId("first").disabled = byId("back").disabled = player.hop === 0;
  byId("last").disabled = byId("forward").disabled = player.hop === hops.length - 1;
  const way = hop.direction === "out" ? "way out" : "way back";
  byId("counter").textContent = `Hop ${player.hop + 1} of ${hops.length}, ${way}: ${hop.kind}`;
  byId("hop").replaceChildren(
    make("p", { class: "say" }, sentenceCase(hop.sentence), ". ", stateOf(hop.state)),
    make("div", {}, make("h3", {}, hop.packet.mtu ? `The packet on ${hop.device} (MTU ${hop.packet.mtu})` : "The packet"),
      headers(hop, before && before.direction === hop.direction ? before : null)),
    make("div", {}, make("h3", {}, commandTitle(hop)),
      hop.checks.length ? hop.checks.map(seenAt) : make("p", { class: "dim" }, "Nothing has to be looked up at this hop.")));
}

function commandTitle(hop) {
  if (!hop.checks.some((check) => check.seen)) return "The command";
  return plan ? "The command, and the line that it would show" : "The command, and the line that was seen";
}

const sentenceCase = (words) => /^[a-z]+ [a-z]/.test(words) ? words[0].toUpperCase() + words.slice(1) : words;

function seenAt(check) {
  return make("div", { class: "seen" },
    terminal(check.command, check.seen || check.difference),
    make("p", { class: "because" }, stateOf(check.state), ` ${check.sentence}, because ${check.because}.`),
    check.state === "failed" ? [
      make("p", { class: "because" }, check.difference), make("p", { class: "because" }, `Likely cause: ${check.cause}`),
      make("p", { class: "because" }, `Fix: ${check.fix}`)] : null);
}

// --- the packet's headers ----------------------------------------------------------------------------------------

const TUNNELS = {
  "vxlan.calico": ["UDP 4789, VXLAN, VNI 4096"], tunl0: ["IP in IP (protocol 4)"], "wireguard.cali": ["UDP 51820, WireGuard (encrypted)"],
};

/** The headers as boxes inside one another, the outermost first. What has changed since the hop before is marked. */
function headers(hop, before) {
  const now = hop.packet, was = before ? before.packet : null;
  const field = (name, key) => {
    if (now[key] === undefined) return [];
    const changed = was && was[key] !== undefined && was[key] !== now[key];
    const fresh = was && was[key] === undefined;
    return [make("dt", {}, name), make("dd", { class: changed || fresh ? "changed" : null }, now[key],
      changed ? make("span", { class: "was" }, `was ${was[key]}`) : fresh ? make("span", { class: "was" }, "new") : null)];
  };
  const box = (css, title, fields, inside) => make("div", { class: `header ${css}` }, make("p", {}, title),
    fields.length ? make("dl", {}, fields) : null, inside);
  const reply = hop.direction === "back";
  let inner = now.protocol && now.protocol !== "icmp"
    ? box("payload", now.protocol.toUpperCase(), field(reply ? "from port" : "to port", "port"), null)
    : box("payload", `ICMP echo ${reply ? "reply" : "request"}`, [], null);
  inner = box("", "IP", [...field("from", "source"), ...field("to", "destination"), ...field("TTL", "ttl")], inner);
  if (now.sourceMac || now.destinationMac) {
    inner = box("", "Ethernet", [...field("from", "sourceMac"), ...field("to", "destinationMac")], inner);
  }
  if (now.outerSource) {
    const tunnel = (TUNNELS[hop.device] || TUNNELS[wrapping(hop)] || ["outer header"])[0];
    inner = box("outer", `Outer IP, ${tunnel}`, [...field("from", "outerSource"), ...field("to", "outerDestination")], inner);
  }
  return inner;
}

/** The tunnel of a hop whose own device is the node's interface. */
function wrapping(hop) {
  const hops = player.walk.hops.filter((other) => other.direction === hop.direction && other.packet.outerSource);
  return hops.map((other) => other.device).find((device) => TUNNELS[device]);
}
