// Lines over steps, as SVG.

import { fill, figure, h } from "./dom.js";

const NS = "http://www.w3.org/2000/svg";
const WIDTH = 560, HEIGHT = 200, LEFT = 52, BOTTOM = 24, TOP = 12, RIGHT = 10;

function svg(tag, attributes, text) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Return ticks at round numbers. */
export function ticks(low, high, wanted = 4) {
  const raw = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((n) => n * power >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(at);
  return found;
}

const label = (value) => (value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(4))));

/** Return a running mean: noise of single steps hides where a run goes. */
export function smoothed(ys, width) {
  return ys.map((_, n) => {
    const some = ys.slice(Math.max(0, n - width + 1), n + 1).filter((y) => y !== null);
    return some.length ? some.reduce((sum, y) => sum + y, 0) / some.length : null;
  });
}

/** Return a figure of `ys` over `xs`. With `smooth` the raw line is pale. With `dots` each point is marked. */
export function chart(title, xs, ys, { smooth = false, dots = false, digits = 3 } = {}) {
  const known = ys.map((y, n) => [xs[n], y]).filter(([, y]) => y !== null && y !== undefined);
  const readout = h("output", {});
  const caption = h("figcaption", {}, h("span", {}, title), readout);
  if (!known.length) return h("figure", {}, caption, h("p", { class: "note" }, "Nothing was measured."));
  const last = known.at(-1);
  const said = ([x, y]) => `step ${x}: ${Math.abs(y) < 0.001 && y !== 0 ? y.toExponential(2) : figure(y, digits)}`;
  fill(readout, said(last));
  let [low, high] = [Math.min(...known.map(([, y]) => y)), Math.max(...known.map(([, y]) => y))];
  if (low === high) [low, high] = [low - Math.abs(low || 1) / 10, high + Math.abs(high || 1) / 10];
  const [from, to] = [Math.min(...xs), Math.max(...xs)];
  const px = (x) => LEFT + ((x - from) / (to - from || 1)) * (WIDTH - LEFT - RIGHT);
  const py = (y) => HEIGHT - BOTTOM - ((y - low) / (high - low)) * (HEIGHT - BOTTOM - TOP);
  const path = (line) => line.map((y, n) => (y === null || y === undefined ? "" : `${n && line[n - 1] !== null ? "L" : "M"}${px(xs[n]).toFixed(1)} ${py(y).toFixed(1)}`)).join("");
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}: from ${said(known[0])} to ${said(last)}` });
  for (const at of ticks(low, high)) {
    drawing.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: py(at), y2: py(at) }),
      svg("text", { x: LEFT - 8, y: py(at) + 4, "text-anchor": "end" }, label(at)));
  }
  for (const at of ticks(from, to, 6).filter(Number.isInteger)) {
    drawing.append(svg("text", { x: px(at), y: HEIGHT - 6, "text-anchor": "middle" }, at));
  }
  drawing.append(svg("path", { class: smooth ? "series raw" : "series", d: path(ys) }));
  if (smooth) drawing.append(svg("path", { class: "series", d: path(smoothed(ys, Math.max(3, Math.round(ys.length / 15)))) }));
  if (dots) for (const [x, y] of known) drawing.append(svg("circle", { class: "dot", cx: px(x), cy: py(y), r: 3 }));
  const cursor = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, x1: -9, x2: -9 });
  drawing.append(cursor);
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * WIDTH;
    const nearest = known.reduce((best, point) => (Math.abs(px(point[0]) - x) < Math.abs(px(best[0]) - x) ? point : best));
    cursor.setAttribute("x1", px(nearest[0]));
    cursor.setAttribute("x2", px(nearest[0]));
    fill(readout, said(nearest));
  });
  drawing.addEventListener("pointerleave", () => { cursor.setAttribute("x1", -9); cursor.setAttribute("x2", -9); fill(readout, said(last)); });
  return h("figure", {}, caption, drawing);
}
