// Small tools: elements, data, states. Text from a cluster reaches the page as text nodes only.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `props`: attributes; a key that begins with "on" is a listener. Children: elements or text. */
function make(name, props, ...children) {
  const svg = ["svg", "g", "rect", "path", "circle", "text", "title", "desc"].includes(name);
  const node = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === "") continue;
    node.append(typeof child === "object" ? child : document.createTextNode(String(child)));
  }
  return node;
}

const byId = (id) => document.getElementById(id);

const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

const cache = {};

/** A part of the page's data, unpacked when it is first asked for. */
function data(name) {
  cache[name] ??= unpack(byId(`data-${name}`).textContent);
  return cache[name];
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

/** A state in words, with the sign that its class gives it. */
function stateOf(state) {
  return make("span", { class: `state ${state.replace(" ", "-")}` }, state);
}

/** A command and what it prints, as in a terminal. */
function terminal(command, seen) {
  const prompt = /^[^\s$]+\$ /.test(command) ? "" : "$ ";
  return make("div", { class: "terminal" },
    make("span", { class: "typed" }, prompt + command),
    seen ? make("span", { class: "got" }, seen) : null);
}

// --- colours -----------------------------------------------------------------------------------------------------

const THEMES = [["auto", "Auto", "as the system"], ["light", "Light", "light"], ["dark", "Dark", "dark"]];
let theme = 0;

function applyTheme() {
  const [name, label, words] = THEMES[theme];
  const dark = name === "dark" || (name === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme").textContent = label;
  byId("theme").setAttribute("aria-label", `Colours: ${words}`);
}

function startTheme() {
  applyTheme();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
  byId("theme").addEventListener("click", () => {
    theme = (theme + 1) % THEMES.length;
    applyTheme();
  });
}

/** The navigation shows which part is on the screen. */
function startNavigation() {
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  links.forEach((_, id) => seen.observe(byId(id)));
}
