// Everything begins here. The drawing is in the page already; the tables are unpacked after the first picture.

startTheme();
startNavigation();
startModes();
if ("DecompressionStream" in window) {
  startNetwork();
  requestAnimationFrame(() => setTimeout(() => Promise.all([startWalk(), startChecks(), startOrder()])));
} else {
  byId("too-old").hidden = false;
}

// On paper every hop and every failed expectation is shown.
addEventListener("beforeprint", () => { document.querySelectorAll("#all-hops, .chain, .refused").forEach((part) => { part.open = true; }); });
