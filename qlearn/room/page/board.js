// The board: asks the server for its state, and draws it.
const REFRESH_MS = 2000;
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 480; // of a strip, in its own units
const $ = (id) => document.getElementById(id);
let drawn = "";

function element(name, text = "", attributes = {}, space = null) {
  const made = space ? document.createElementNS(space, name) : document.createElement(name);
  made.textContent = text;
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}

function row(cells, kind = "td") {
  const made = element("tr");
  cells.forEach((cell, i) => {
    const scope = kind === "th" ? { scope: "col" } : { scope: "row" };
    const one = kind === "th" || i === 0 ? element("th", "", scope) : element("td");
    one.append(cell);
    made.append(one);
  });
  return made;
}

function table(caption, heads, rows) {
  const made = element("table");
  const head = element("thead");
  const body = element("tbody");
  head.append(row(heads, "th"));
  body.append(...rows);
  made.append(element("caption", caption), head, body);
  return made;
}

function groupName(key) {
  return key.startsWith("ex") ? `Exercise ${key.slice(2)}` : `Lesson ${key}`;
}

function partRow(part, learners) {
  const passed = element("div", "", { class: "passed" });
  passed.append(
    element("meter", "", { min: 0, max: Math.max(1, learners), value: part.passed,
      "aria-hidden": "true" }),
    element("span", `${part.passed} of ${learners}`),
  );
  const times = part.times > 1 ? ` (${part.times} times)` : "";
  const said = part.sentence ? part.sentence + times : "";
  return row([part.part.split(" ").slice(1).join(" "), passed, part.stuck ? `${part.stuck} stuck` : "", said]);
}

function drawParts(state) {
  const groups = new Map();
  for (const part of state.parts) {
    const key = part.part.split(" ")[0];
    groups.set(key, [...(groups.get(key) || []), part]);
  }
  const touched = [...groups].filter(([, parts]) => parts.some((p) => p.passed + p.stuck > 0));
  const rest = [...groups.keys()].filter((key) => !touched.some(([other]) => other === key));
  $("groups").replaceChildren(...touched.map(([key, parts]) => table(
    groupName(key),
    ["Part", "Passed", "Not yet", "What the check says most often"],
    parts.map((part) => partRow(part, state.learners)),
  )));
  $("untouched").textContent = rest.length ? `Not begun: ${rest.map(groupName).join(", ")}.` : "";
}

function strip(label, values) {
  const logs = values.map(([speedup]) => Math.log2(speedup));
  const reach = Math.max(1, ...logs.map(Math.abs));
  const at = (value) => WIDTH / 2 + (value / reach) * (WIDTH / 2 - 16);
  const faster = values.filter(([, low]) => low > 1).length;
  const slower = values.filter(([, , high]) => high < 1).length;
  const said = `${faster} faster, ${slower} slower, ${values.length - faster - slower} unsure`;
  const middle = [...logs].sort((a, b) => a - b)[Math.floor(logs.length / 2)];
  const drawing = element("svg", "", {
    viewBox: `0 0 ${WIDTH} 36`, role: "img",
    "aria-label": `${label}: ${said}; about ${(2 ** middle).toFixed(2)} times as fast.`,
  }, SVG);
  drawing.append(element("line", "", { x1: at(0), x2: at(0), y1: 0, y2: 36, class: "one" }, SVG));
  for (const value of logs) {
    drawing.append(element("circle", "", { cx: at(value), cy: 18, r: 8 }, SVG));
  }
  return row([label, drawing, `${(2 ** middle).toFixed(2)}×`, said]);
}

function drawShared(shared) {
  $("strips").replaceChildren(...Object.entries(shared).map(([name, labels]) => table(
    name === "speedup" ? "Lesson 00: one model" : "Lesson 02: where int8 begins to pay",
    ["What", "Slower | faster", "Middle", "Machines"],
    Object.entries(labels).map(([label, values]) => strip(label, values)),
  )));
}

function drawLaptops(laptops) {
  const ready = laptops.filter((laptop) => laptop.FAIL.length === 0).length;
  const failing = [...laptops].sort((a, b) => b.FAIL.length - a.FAIL.length);
  $("ready").replaceChildren(laptops.length === 0 ? element("p", "No laptop has told yet.") : table(
    `${ready} of ${laptops.length} ready`, ["Nickname", "Verdict", "Fails", "Notes"],
    failing.map((laptop) => row([laptop.nickname, laptop.FAIL.length ? "FAIL" : "ready",
      laptop.FAIL.join(", "), laptop.note.join(", ")])),
  ));
}

function drawPhones(phones) {
  const ms = (value) => `${value.toPrecision(3)} ms`;
  $("times").replaceChildren(phones.length === 0 ? element("p", "No phone has reported yet.") : table(
    "One inference", ["Phone", "Model", "fp32", "int8", "Speedup"],
    phones.map((p) => row([p.phone, p.model, ms(p.fp32_ms), ms(p.int8_ms), `${p.speedup.toFixed(2)}×`])),
  ));
}

async function refresh() {
  try {
    const answer = await fetch("state/board");
    if (!answer.ok) {
      throw new Error(String(answer.status));
    }
    const text = await answer.text();
    if (text !== drawn) { // a screen reader is told what has changed, and nothing else
      const state = JSON.parse(text);
      $("count").textContent = state.learners === 1 ? "1 learner" : `${state.learners} learners`;
      $("hands").textContent = state.hands.length ? `Asking for help: ${state.hands.join(", ")}` : "";
      drawParts(state);
      drawShared(state.shared);
      drawLaptops(state.laptops);
      drawPhones(state.phones);
      drawn = text;
    }
    $("problem").textContent = "";
  } catch {
    $("problem").textContent = "The board's server does not answer. This page keeps asking.";
  }
}

const tabs = [...document.querySelectorAll("[role=tab]")];

function select(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  tab.focus();
}

tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const end = { Home: 0, End: tabs.length - 1 }[event.key];
    if (step !== undefined) {
      select(tabs[(i + step + tabs.length) % tabs.length]);
    } else if (end !== undefined) {
      select(tabs[end]);
    }
  });
});

const here = new URL(".", document.baseURI).href;
$("command").textContent = `qlearn.join("${here}", "a nickname")`;
$("doctor").textContent = `.venv/bin/qlearn doctor --send ${here} NICKNAME`;
$("lab").textContent = `${here}phone/`;
refresh();
setInterval(() => document.hidden || refresh(), REFRESH_MS);
