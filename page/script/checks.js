// The expectations: filters, and a list that grows when asked.

const PAGE_SIZE = 60;
const list = { rows: [], found: [], shown: 0 };

async function startChecks() {
  list.rows = await data("checks");
  const filters = byId("filters");
  options(filters.elements.node, new Set(list.rows.map((row) => row[1])));
  options(filters.elements.topic, new Set(list.rows.map((row) => row[0])));
  filters.addEventListener("input", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());
  byId("checks-more").addEventListener("click", () => more(PAGE_SIZE));
  filter();
}

function options(select, values) {
  select.append(...[...values].map((value) => make("option", { value }, value)));
}

function filter() {
  const { node, topic, words } = byId("filters").elements;
  const states = new Set([...byId("filters").querySelectorAll("[name=state]:checked")].map((box) => box.value));
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  list.found = list.rows.filter((row) => states.has(row[3]) && (!node.value || row[1] === node.value) &&
    (!topic.value || row[0] === topic.value) && wanted.every((word) => text(row).includes(word)));
  // What fails comes first; the order is kept otherwise.
  const rank = { failed: 0, unknown: 1, passed: 2, foreseen: 2 };
  list.found.sort((one, other) => rank[one[3]] - rank[other[3]]);
  list.shown = 0;
  byId("checks-list").replaceChildren();
  more(PAGE_SIZE);
}

const text = (row) => (row.text ??= row.slice(0, 8).join(" ").toLowerCase());

function more(count) {
  const next = list.found.slice(list.shown, list.shown + count);
  byId("checks-list").append(...next.map(checkRow));
  list.shown += next.length;
  byId("checks-count").textContent = `${list.found.length} of ${list.rows.length}${list.shown < list.found.length ? `, the first ${list.shown} shown` : ""}`;
  byId("checks-more").hidden = list.shown >= list.found.length;
}

function checkRow([topic, node, , state, sentence, command, because, seen, difference, cause, fix]) {
  const more = make("details", { class: "check" }, make("summary", {},
    stateOf(state), make("span", { class: "place" }, `${node}, ${topic}`), make("span", { class: "words" }, sentence)));
  more.addEventListener("toggle", () => {
    if (!more.open || more.children.length > 1) return;
    more.append(make("div", { class: "more" },
      terminal(command, seen),
      make("p", {}, make("span", { class: "dim" }, "Because "), because, "."),
      difference ? make("p", {}, make("strong", {}, state === "failed" ? "Differs: " : "Not known: "), difference) : null,
      cause ? make("p", {}, make("span", { class: "dim" }, "Likely cause: "), cause) : null,
      fix ? make("p", {}, make("span", { class: "dim" }, "Fix: "), fix) : null));
  });
  return more;
}
