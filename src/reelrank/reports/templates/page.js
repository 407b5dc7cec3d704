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
  const stretch = width < NARROW ? slim(layout, spec.data) : 1;
  if (spec.data.some((trace) => trace.orientation === "h" && trace.text)) layout.margin.r = 64; // numbers beside bars
  const named = spec.data.filter((trace) => trace.name && trace.showlegend !== false);
  const legend = named.length > 1;
  const top = legend ? (width < NARROW ? 56 : 36) : spec.layout.coloraxis ? 28 : 12;
  const inner = stretch * (layout.height - layout.margin.t - layout.margin.b);
  layout.margin = { ...layout.margin, t: top };
  layout.height = inner + top + layout.margin.b;
  layout.legend = { y: 1 };
  layout.autosize = true;
  const { facets, gap } = layout.meta ?? {};
  return facets && facets.length > 3 && width >= 760 ? fold(layout, facets, gap) : layout;
}

// On a phone numbers lie flat and are few, and names of several lines need height: by how much it is more.
function slim(layout, data) {
  for (const name of Object.keys(layout)) {
    if (name.startsWith("xaxis")) Object.assign(layout[name], { tickangle: 0, nticks: 4 });
  }
  const names = data.flatMap((trace) => (Array.isArray(trace.y) ? trace.y.map(wrap) : []));
  const lines = names.map((name) => String(name).split("<br>").length);
  return 1 + 0.4 * (Math.max(1, ...lines) - 1);
}

// Names beside bars break at spaces.
function wrap(value) {
  if (typeof value !== "string") return value;
  const lines = [""];
  for (const word of value.split(" ")) {
    const line = lines[lines.length - 1];
    if (line && line.length + word.length >= NAME) lines.push(word);
    else lines[lines.length - 1] = line ? line + " " + word : word;
  }
  return lines.join("<br>");
}

// Names fit the width, and whiskers stand out from the ground.
function traces(spec, width, ink) {
  return spec.data.map((trace) => ({
    ...trace,
    ...(width < NARROW && Array.isArray(trace.y) ? { y: trace.y.map(wrap) } : {}),
    ...(trace.error_x ? { error_x: { ...trace.error_x, color: ink } } : {}),
  }));
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

const NARROW = 560, NAME = 24; // pixels of a plot, characters of a name's line
const PAPER_WIDTH = 760; // wide enough for two columns; the browser shrinks the page to fit

function draw(paper) {
  for (const { plot, spec } of charts) {
    const width = paper ? PAPER_WIDTH : plot.clientWidth;
    const layout = arrange(spec, width);
    if (paper) layout.width = PAPER_WIDTH;
    layout.template = themes[!paper && dark.matches ? "dark" : "light"];
    plot.style.minHeight = layout.height + "px";
    const ink = layout.template.layout.font.color;
    Plotly.react(plot, traces(spec, width, ink), layout, { displayModeBar: false, responsive: true });
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
