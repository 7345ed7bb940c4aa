"use strict";

const root = document.documentElement;
document.getElementById("mode").addEventListener("click", () => {
  const isDark = getComputedStyle(root).getPropertyValue("--back").trim() !== "#ffffff";
  root.dataset.mode = isDark ? "light" : "dark";
});

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.querySelectorAll("thead th")];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      const text = (row) => row.cells[column].textContent;
      const number = (row) => parseFloat(text(row).replaceAll(",", ""));
      rows.sort((a, b) => {
        const [x, y] = [number(a), number(b)];
        const order = Number.isNaN(x) || Number.isNaN(y) ? text(a).localeCompare(text(b)) : x - y;
        return ascending ? order : -order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}

for (const showcase of document.querySelectorAll(".showcase")) {
  const slider = showcase.querySelector(".slider");
  const range = slider.querySelector("input");
  const move = () => {
    slider.style.setProperty("--cut", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${range.value}% ${slider.querySelector(".before").alt}`);
  };
  range.addEventListener("input", move);
  for (const side of ["before", "after"]) {
    const select = showcase.querySelector(`.choose-${side}`);
    const show = () => {
      const panel = showcase.querySelector(`.figure img[data-panel="${select.value}"]`);
      const image = slider.querySelector(`.${side}`);
      image.src = panel.src;
      image.alt = panel.alt;
      move();
    };
    select.addEventListener("change", show);
    show();
  }
}

let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  folded.forEach((details) => { details.open = true; });
});
window.addEventListener("afterprint", () => {
  folded.forEach((details) => { details.open = false; });
});
