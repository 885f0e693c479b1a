// Which modes the comparison shows.

function startModes() {
  const choice = byId("mode-choice");
  if (!choice) return;
  choice.addEventListener("change", (event) => {
    document.querySelectorAll(`[data-mode="${event.target.value}"]`).forEach((cell) => { cell.hidden = !event.target.checked; });
  });
}
