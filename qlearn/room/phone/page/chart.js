// Draws a model's results: a sentence, a bar chart, and a table with the same numbers.
import { PRECISIONS } from "./measure.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 328; // the room on a screen of 360 pixels
const LEFT = 44;
const RIGHT = 84;
const ROW = 40;

/** Three significant digits. */
export function number(value) {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

export function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}

function shape(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  made.textContent = text;
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}

export function speedup(runs) {
  return runs.fp32.median_ms / runs.int8.median_ms;
}

function verdict(runs) {
  const ratio = speedup(runs);
  return ratio >= 1
    ? `int8 is ${number(ratio)} times as fast as fp32.`
    : `int8 is slower: it takes ${number(1 / ratio)} times as long as fp32.`;
}

function chart(title, runs) {
  const most = Math.max(...PRECISIONS.map((p) => runs[p].q3_ms));
  const scale = (WIDTH - LEFT - RIGHT) / most;
  const said = PRECISIONS.map((p) => `${p} ${number(runs[p].median_ms)} ms`).join(", ");
  const drawing = shape("svg", {
    viewBox: `0 0 ${WIDTH} ${ROW * PRECISIONS.length}`,
    role: "img",
    "aria-label": `Bars: median time of one inference of ${title}: ${said}.`,
  });
  PRECISIONS.forEach((precision, row) => {
    const { median_ms: median, q1_ms: q1, q3_ms: q3 } = runs[precision];
    const middle = row * ROW + ROW / 2;
    const end = LEFT + scale * Math.max(median, q3);
    drawing.append(
      shape("text", { x: 0, y: middle + 5 }, precision),
      shape("rect", {
        x: LEFT, y: middle - 13, width: scale * median, height: 26, class: precision,
      }),
      shape("line", {
        x1: LEFT + scale * q1, x2: LEFT + scale * q3, y1: middle, y2: middle, class: "spread",
      }),
      shape("text", { x: end + 6, y: middle + 5 }, `${number(median)} ms`),
    );
  });
  return drawing;
}

function table(title, model, runs) {
  const made = element("table");
  made.append(element("caption", `${title}, one inference`));
  const head = element("thead");
  const names = element("tr");
  for (const name of ["", "Median", "Middle half", "Same class"]) {
    names.append(name ? element("th", name, { scope: "col" }) : element("td"));
  }
  head.append(names);
  const body = element("tbody");
  for (const precision of PRECISIONS) {
    const run = runs[precision];
    const count = model.files[precision].outputs.length;
    const row = element("tr");
    row.append(
      element("th", precision, { scope: "row" }),
      element("td", `${number(run.median_ms)} ms`),
      element("td", `${number(run.q1_ms)} to ${number(run.q3_ms)}`),
      element("td", `${Math.round(run.top1 * count)} of ${count}`),
    );
    body.append(row);
  }
  made.append(head, body);
  return made;
}

function details(model, precision, run) {
  const { calls, rounds, sqnr_db: decibels } = run;
  const near = decibels === null ? "outputs equal the host's"
    : `outputs agree with the host's to ${decibels.toFixed(0)} dB`;
  const size = number(model.files[precision].bytes / 1e6);
  const runs = calls === 1 ? "1 run" : `${calls} runs`;
  return element("p", `${precision}: ${size} MB; ${rounds} rounds of ${runs}; ${near}.`);
}

/** A section with everything about one model. */
export function results(model, runs) {
  const section = element("section");
  section.append(
    element("h2", model.title),
    element("p", verdict(runs), { class: "answer" }),
    chart(model.title, runs),
    table(model.title, model, runs),
    ...PRECISIONS.map((precision) => details(model, precision, runs[precision])),
  );
  return section;
}
