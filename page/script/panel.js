// The panel of a node or pod: its interfaces, tables and files.

async function showPanel(key) {
  const [things, rows] = await Promise.all([data("things"), data("checks")]);
  if (chosen !== key) return;
  const [kind, number] = key.split(" ");
  const thing = kind === "node" ? things.nodes[number] : things.pods[number];
  byId("panel-title").textContent = kind === "node" ? thing.name : thing.id;
  byId("panel-body").replaceChildren(...(kind === "node" ? nodeParts(thing, things, rows) : podParts(thing, things, rows)));
}

const plan = document.querySelector(".source .state").classList.contains("foreseen");

function origin(thing) {
  if (thing.problem) return make("p", { class: "origin" }, stateOf("unknown"), ` ${thing.problem}`);
  return make("p", { class: "origin" },
    make("span", { class: `state ${plan ? "foreseen" : "passed"}` }, plan ? "foreseen" : "observed"),
    plan ? " from the plan; no lab was read" : " when the lab was read");
}

function nodeParts(node, things, rows) {
  const pods = things.pods.map((pod, number) => [pod, number]).filter(([pod]) => pod.node === node.name);
  return [
    make("p", { class: "where" }, `${node.role === "control-plane" ? "control plane" : "worker"} in subnet ${node.subnet}`),
    origin(node),
    ...failures(node, rows),
    pairs([["address", node.address], ["blocks", node.blocks.map(([cidr, pool]) => `${cidr} of ${pool || "no pool"}`).join(", ") || "none"]]),
    group("Pods", pods.length + node.hosted, pods.length > 0, () => [
      make("ul", { class: "lines" }, pods.map(([pod, number]) => make("li", {},
        make("button", { class: "link", type: "button", onclick: () => choose(`pod ${number}`, true) }, pod.id),
        make("span", { class: "dim" }, ` ${pod.address || pod.phase}`)))),
      node.hosted ? make("p", { class: "because" }, `and ${node.hosted} on the node's own network`) : null,
    ]),
    group("Interfaces", node.links.length, true, () => node.links.map((link) => interfaceOf(link, rows))),
    group("Routes", node.routes.length, true, () => [lines(node.routes, rows)]),
    node.encrypted.length ? group("Encrypted routes", node.encrypted.length, false, () => [lines(node.encrypted, rows)]) : null,
    group("Neighbours", node.neighbours.length, false, () => [lines(node.neighbours, rows)]),
    group("Forwarding entries (FDB)", node.fdb.length, false, () => [
      make("p", { class: "because" }, "Entries of multicast groups are left out."), lines(node.fdb, rows)]),
    group("CNI files", node.files.length, false, () => node.files.map(([path, text]) => file(path, text))),
    group("Files that up writes", (things.written[node.name] || []).length, false, () =>
      (things.written[node.name] || []).map(([path, mode, text]) => file(`${mode} ${path}`, things.texts[text]))),
    ...unread(node),
  ].filter(Boolean);
}

/** What failed on a node, with its likely cause. */
function failures(node, rows) {
  const failed = rows.filter((row) => row[1] === node.name && row[3] === "failed");
  return failed.map((row) => make("p", { class: "because" }, stateOf("failed"), ` ${row[4]}. Likely cause: ${row[9]}`));
}

function podParts(pod, things, rows) {
  const at = things.nodes.findIndex((node) => node.name === pod.node);
  return [
    make("p", { class: "where" }, "pod on ",
      make("button", { class: "link", type: "button", onclick: () => choose(`node ${at}`, true) }, pod.node),
      pod.workload ? `, of workload ${pod.workload}` : ", one of the cluster's own"),
    origin(pod),
    pairs([
      ["address", pod.address || "none"], ["phase", pod.phase], ["on the node", pod.hostSide],
      ...pod.attached.map(([name, network, address]) => [name, `${network} ${address}`]),
    ]),
    group("Interfaces", pod.links.length, true, () => pod.links.map((link) => interfaceOf(link, rows))),
    group("Routes", pod.routes.length, true, () => [lines(pod.routes, rows)]),
    group("Neighbours", pod.neighbours.length, true, () => [lines(pod.neighbours, rows)]),
    ...unread(pod),
  ].filter(Boolean);
}

function pairs(entries) {
  return make("dl", { class: "pairs" }, entries.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

/** A part that is filled when it is first opened. */
function group(title, count, open, fill) {
  const details = make("details", { class: "group", open: open && count > 0 },
    make("summary", {}, title, make("span", { class: "count" }, ` ${count}`)));
  let filled = false;
  const onOpen = () => {
    if (!details.open || filled) return;
    filled = true;
    details.append(...fill().filter(Boolean));
  };
  details.addEventListener("toggle", onOpen);
  onOpen();
  return details;
}

/** Lines of a table; one that an expectation is about says which. */
function lines(entries, rows) {
  return make("ul", { class: "lines" }, entries.map(([text, number]) => {
    const row = number === null ? null : rows[number];
    if (!row) return make("li", {}, make("code", { class: "bare" }, text));
    const [, , , state, sentence, , because] = row;
    return make("li", {}, make("details", {},
      make("summary", {}, make("code", {}, text), state === "failed" ? [" ", stateOf(state)] : null),
      make("p", {}, stateOf(state), ` ${sentence}`),
      make("p", {}, `Because ${because}.`)));
  }));
}

function interfaceOf([name, kind, mac, mtu, addresses, up, master, number], rows) {
  const row = number === null ? null : rows[number];
  return make("div", { class: "interface" },
    make("strong", {}, name), kind ? ` ${kind}` : "", addresses ? ` ${addresses}` : "",
    make("br"), make("span", { class: "mac" }, [mac, `MTU ${mtu}`, master && `on ${master}`, up ? "" : "down"].filter(Boolean).join("  ")),
    row && row[3] === "failed" ? [make("br"), stateOf("failed"), ` ${row[4]}`] : null);
}

function file(path, text) {
  return make("details", { class: "file" }, make("summary", {}, path), make("pre", { tabindex: "0" }, text));
}

function unread(thing) {
  return thing.unread.map((why) => make("p", { class: "because" }, stateOf("unknown"), ` ${why}`));
}
