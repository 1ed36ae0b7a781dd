"use strict";
// Slices lie as tiles in one PNG a layer: no volume is decoded, and no WebGL is needed.
const FLICKER_MS = 500;

for (const box of document.querySelectorAll(".case")) {
  const find = (name) => box.querySelector(name);
  const compare = find(".compare");
  if (!compare) continue;

  const cut = (share) => {
    compare.value = share;
    box.style.setProperty("--cut", `${share}%`);
    box.classList.toggle("whole", Number(share) === 0);
  };
  compare.addEventListener("input", () => cut(compare.value));

  const flicker = find(".flicker");
  let timer = 0;
  flicker.addEventListener("click", () => {
    const on = !timer;
    flicker.setAttribute("aria-pressed", String(on));
    clearInterval(timer);
    timer = on ? setInterval(() => box.classList.toggle("before"), FLICKER_MS) : 0;
    if (!on) box.classList.remove("before");
  });

  const outlines = find(".outlined");
  outlines.addEventListener("change", () => box.classList.toggle("plain", !outlines.checked));

  for (const view of box.querySelectorAll(".view")) {
    const drag = (event) => {
      if (event.buttons !== 1) return;
      const { left, width } = view.getBoundingClientRect();
      cut(Math.round(100 * Math.min(1, Math.max(0, (event.clientX - left) / width))));
    };
    view.addEventListener("pointerdown", drag);
    view.addEventListener("pointermove", drag);
    view.addEventListener("dragstart", (event) => event.preventDefault());
  }

  const slice = find(".slice");
  if (slice) {
    const view = find(".stack .view");
    const paths = view.querySelectorAll("path");
    const shapes = JSON.parse(view.dataset.outlines);
    const columns = Number(view.style.getPropertyValue("--columns"));
    const show = (number) => {
      view.style.setProperty("--column", number % columns);
      view.style.setProperty("--row", Math.floor(number / columns));
      paths.forEach((path, k) => path.setAttribute("d", shapes[number][k]));
      find(".slice-number").value = `${number + 1} of ${shapes.length}`;
    };
    slice.addEventListener("input", () => show(Number(slice.value) - 1));
    view.addEventListener("wheel", (event) => {
      const before = slice.value;
      slice.value = Number(before) + Math.sign(event.deltaY);
      if (slice.value === before) return;  // at either end the page goes on
      event.preventDefault();
      show(Number(slice.value) - 1);
    }, { passive: false });
  }
}

// What is folded is printed too, and folded again.
const opened = [];
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details:not([open])")) {
    folded.open = true;
    opened.push(folded);
  }
});
addEventListener("afterprint", () => {
  while (opened.length) opened.pop().open = false;
});
