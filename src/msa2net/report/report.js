"use strict";
for (const card of document.querySelectorAll(".card")) {
  const slider = card.querySelector("input[type=range]");
  const picture = card.querySelector("image");
  const layers = card.querySelectorAll(".view > g");
  for (const box of card.querySelectorAll("input[type=checkbox]")) {
    const layer = card.querySelector(".view > ." + box.name);
    box.addEventListener("change", () => layer.toggleAttribute("hidden", !box.checked));
  }
  if (slider) slider.addEventListener("input", () => {
    const slice = slider.value - 1;
    picture.setAttribute("y", -slice * picture.getAttribute("height") / slider.max);
    for (const layer of layers) [...layer.children].forEach((g, z) => g.toggleAttribute("hidden", z !== slice));
    const text = `${slider.value} of ${slider.max}`;
    slider.nextElementSibling.value = text;
    slider.setAttribute("aria-valuetext", text);
  });
}
// A table that fits is no stop on the way of the Tab key.
const measure = new ResizeObserver(entries => {
  for (const { target } of entries) target.tabIndex = target.scrollWidth > target.clientWidth ? 0 : -1;
});
for (const box of document.querySelectorAll(".scroll")) measure.observe(box);
// On paper nothing can be unfolded.
const folded = document.querySelector("details.distances");
let opened = false;
addEventListener("beforeprint", () => { if (folded) { opened = folded.open; folded.open = true; } });
addEventListener("afterprint", () => { if (folded) folded.open = opened; });
document.documentElement.dataset.script = "on";
