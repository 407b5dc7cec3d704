"use strict";
const themes = JSON.parse(document.getElementById("themes").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const charts = [...document.querySelectorAll("figure.chart")].map((figure) => ({
  plot: figure.querySelector(".plot"),
  spec: JSON.parse(figure.querySelector("script").textContent),
}));

// Title and caption stand in the page, so the plot keeps room for its legend only.
function arrange(spec, width) {
  const layout = structuredClone(spec.layout);
  const named = spec.data.filter((trace) => trace.name && trace.showlegend !== false);
  const legend = named.length > 1;
  const top = legend ? (width < 560 ? 56 : 36) : spec.layout.coloraxis ? 28 : 12;
  const inner = layout.height - layout.margin.t - layout.margin.b;
  layout.margin = { ...layout.margin, t: top };
  layout.height = inner + top + layout.margin.b;
  layout.legend = { y: 1 };
  layout.autosize = true;
  const { facets, gap } = layout.meta ?? {};
  return facets && facets.length > 3 && width >= 760 ? fold(layout, facets, gap) : layout;
}

// Many facets on a wide page stand in two columns.
function fold(layout, heights, gap) {
  const rows = [];
  heights.forEach((height, i) => {
    const row = Math.floor(i / 2);
    rows[row] = Math.max(rows[row] ?? 0, height);
  });
  const inner = rows.reduce((a, b) => a + b) + gap * (rows.length - 1);
  let y = 0;
  rows.forEach((height, row) => {
    for (const column of [0, 1]) {
      const i = 2 * row + column;
      if (i >= heights.length) break;
      const name = i === 0 ? "" : i + 1;
      const bottom = 1 - (y + heights[i]) / inner;
      Object.assign(layout["xaxis" + name], { domain: column ? [0.61, 1] : [0, 0.39] });
      Object.assign(layout["yaxis" + name], { domain: [Math.max(0, bottom), 1 - y / inner] });
    }
    y += height + gap;
  });
  layout.height = inner + layout.margin.t + layout.margin.b;
  return layout;
}

const PAPER_WIDTH = 760; // wide enough for two columns; the browser shrinks the page to fit

function draw(paper) {
  for (const { plot, spec } of charts) {
    const layout = arrange(spec, paper ? PAPER_WIDTH : plot.clientWidth);
    if (paper) layout.width = PAPER_WIDTH;
    layout.template = themes[!paper && dark.matches ? "dark" : "light"];
    plot.style.minHeight = layout.height + "px";
    Plotly.react(plot, spec.data, layout, { displayModeBar: false, responsive: true });
  }
}

let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) { width = innerWidth; draw(false); }
});
dark.addEventListener("change", () => draw(false));
addEventListener("beforeprint", () => draw(true));
addEventListener("afterprint", () => draw(false));
draw(false);

for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.sort;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return up ? order : -order;
    });
    table.tBodies[0].append(...rows);
  }));
}
