"use strict";

// Colours and fonts in a figure are names of CSS variables: put in what they mean now.
function resolve(value, style) {
  if (typeof value === "string") {
    const name = /^var\((--[a-z0-9-]+)\)$/.exec(value);
    return name ? style.getPropertyValue(name[1]).trim() : value;
  }
  if (Array.isArray(value)) return value.map((each) => resolve(each, style));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [key, resolve(each, style)]),
  );
}

const plots = [...document.querySelectorAll(".plot")].map((element) => {
  const source = element.querySelector("script");
  const figure = JSON.parse(source.textContent);
  source.remove();
  return { element, figure };
});

function draw() {
  const style = getComputedStyle(document.documentElement);
  for (const { element, figure } of plots) {
    const { data, layout, config } = resolve(figure, style);
    Plotly.react(element, data, layout, { displayModeBar: false, responsive: true, ...config });
  }
}

// The library that draws stands here once, compressed; most of a page's size is still its own.
async function library() {
  const packed = document.getElementById("library").textContent.trim();
  const bytes = Uint8Array.from(atob(packed), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

library().then(() => {
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}).catch(() => {
  for (const { element } of plots) {
    element.textContent = "This browser is too old to draw the figure; its values are in results.json.";
  }
});
