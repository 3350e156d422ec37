// The page of the phone lab: download, measure, show, send.
import { element, results } from "./chart.js";
import { loadEngine, measureModel, PRECISIONS, steps, threads } from "./measure.js";

const PAGE = 1; // goes into the report: raise it when the measurement changes
const ENGINE_MB = 4; // compressed, as it is sent
const DOWNLOAD = 0.3; // the share of the progress bar
const WAITS_MS = [500, 1000, 2000, 4000, 8000, 8000, 8000, 8000]; // before sending again
const TIMEOUT_MS = 10000;
const REFRESH_MS = 5000;

const $ = (id) => document.getElementById(id);
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let unsent = null;
let refreshing = 0;

/** 128 random bits; crypto.randomUUID is missing where the address is not trusted. */
function identity() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The same in each report of this tab, so that a phone that runs twice counts once. */
function phone() {
  try {
    const kept = sessionStorage.getItem("phone") ?? identity();
    sessionStorage.setItem("phone", kept);
    return kept;
  } catch {
    return identity(); // storage is forbidden here
  }
}

async function get(path, received = () => {}) {
  try {
    const response = await fetch(path);
    if (!response.ok) {
      throw new Error(`The server says ${response.status}.`);
    }
    const parts = [];
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return await new Blob(parts).arrayBuffer();
      }
      parts.push(value);
      received(value.length);
    }
  } catch (error) {
    throw new Error(`${path} could not be downloaded. Is the lab still running, and this phone `
      + `still in its network? (${error.message})`);
  }
}

function say(text) {
  $("status").textContent = text;
}

async function download(models) {
  const total = models.flatMap((m) => PRECISIONS.map((p) => m.files[p].bytes))
    .reduce((a, b) => a + b);
  let loaded = 0;
  const received = (bytes) => {
    loaded += bytes;
    $("bar").value = DOWNLOAD * Math.min(1, loaded / total);
  };
  say("Downloading.");
  await loadEngine(await get("ort/ort-wasm-simd-threaded.wasm"));
  const files = {};
  for (const model of models) {
    const folder = `models/${model.name}`;
    files[model.name] = { inputs: new Float32Array(await get(`${folder}/inputs.bin`)) };
    for (const precision of PRECISIONS) {
      files[model.name][precision] = await get(`${folder}/${precision}.onnx`, received);
    }
  }
  return files;
}

async function measureAll(manifest) {
  const { models, rounds } = manifest;
  const files = await download(models);
  const total = models.map((m) => steps(m, rounds)).reduce((a, b) => a + b);
  let done = 0;
  const step = () => {
    done += 1;
    $("bar").value = DOWNLOAD + (1 - DOWNLOAD) * done / total;
  };
  const measured = {};
  for (const model of models) {
    say(`Measuring ${model.title}. Keep this page in front.`);
    const own = files[model.name];
    measured[model.name] = await measureModel(model, own, own.inputs, rounds, step);
    delete files[model.name]; // a phone has little memory
    $("results").append(results(model, measured[model.name]));
  }
  return measured;
}

function makeReport(models) {
  return {
    id: identity(),
    phone: phone(),
    page: PAGE,
    nickname: $("nickname").value.replace(/\p{C}/gu, "").replace(/\s+/gu, " ").trim(),
    models,
    threads: threads(),
    isolated: Boolean(globalThis.crossOriginIsolated),
    user_agent: navigator.userAgent.slice(0, 400),
    memory_gb: navigator.deviceMemory ?? null,
    cores: navigator.hardwareConcurrency ?? null,
    screen: [Math.round(screen.width), Math.round(screen.height)],
  };
}

function showFacts(report, manifest) {
  const untold = "not told by the browser";
  const facts = {
    Threads: `${report.threads} used`,
    Isolated: report.isolated ? "yes (threads allowed)" : "no (one thread only)",
    Cores: report.cores ?? untold,
    Memory: report.memory_gb === null ? untold : `${report.memory_gb} GB or more`,
    Screen: `${report.screen[0]} by ${report.screen[1]}`,
    Engine: `onnxruntime-web ${manifest.runtime}`,
    Browser: report.user_agent,
  };
  $("list").replaceChildren(...Object.entries(facts).flatMap(
    ([name, value]) => [element("dt", name), element("dd", value)],
  ));
  $("facts").hidden = false;
}

async function request(path, options) {
  const controller = new AbortController();
  const alarm = setTimeout(() => controller.abort(), TIMEOUT_MS);
  try {
    const response = await fetch(path, { ...options, signal: controller.signal });
    return { status: response.status, answer: await response.json() };
  } finally {
    clearTimeout(alarm);
  }
}

/** Send until it has arrived. The report keeps its id, so a second copy is not kept. */
async function send(report) {
  const options = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(report),
  };
  for (let attempt = 0; ; attempt += 1) {
    try {
      const { status, answer } = await request("reports", options);
      if (status === 200 || status === 201) {
        return answer;
      }
      if (status < 500 && status !== 408) {
        throw new Error(answer.error, { cause: "refused" });
      }
    } catch (error) {
      if (error.cause === "refused") {
        throw error;
      }
    }
    if (attempt === WAITS_MS.length) {
      throw new Error("The result could not be sent: is this phone still in the network?");
    }
    say("The connection was lost. Sending again.");
    await wait(WAITS_MS[attempt]);
  }
}

function showRank(rank) {
  const others = rank.phones - 1;
  const text = others === 0
    ? `This is the first phone that has run ${rank.model}.`
    : `Of ${rank.phones} phones with ${rank.model}: place ${rank.speed} by speed in int8, `
      + `place ${rank.speedup} by what int8 gains over fp32.`;
  if ($("rank").textContent !== text) {
    $("rank").textContent = text;
  }
  $("others").hidden = false;
}

async function refresh(id) {
  try {
    const { status, answer } = await request(`rank/${id}`);
    if (status === 200) {
      showRank(answer);
    }
  } catch {
    // The lab may be over; what is shown stays.
  }
}

async function deliver() {
  say("Sending the result.");
  const report = unsent;
  showRank(await send(report));
  unsent = null;
  refreshing = setInterval(() => document.hidden || refresh(report.id), REFRESH_MS);
  say("Done. The result has arrived.");
  $("results").dataset.report = report.id;
}

async function run(manifest) {
  // Not "disabled": the button would lose the keyboard's focus.
  if ($("start").getAttribute("aria-disabled") === "true") {
    return;
  }
  clearInterval(refreshing);
  $("start").setAttribute("aria-disabled", "true");
  $("start").textContent = "Running";
  $("problem").textContent = "";
  $("before").hidden = true;
  try {
    if (unsent === null) {
      $("results").replaceChildren();
      delete $("results").dataset.report;
      $("others").hidden = true;
      $("facts").hidden = true;
      $("bar").value = 0;
      $("running").hidden = false;
      unsent = makeReport(await measureAll(manifest));
      showFacts(unsent, manifest);
    }
    $("running").hidden = true;
    await deliver();
  } catch (error) {
    say("");
    $("running").hidden = true;
    $("problem").textContent = error.message || String(error);
  }
  $("start").textContent = unsent === null ? "Run again" : "Send again";
  $("start").removeAttribute("aria-disabled");
}

async function begin() {
  try {
    const manifest = JSON.parse(new TextDecoder().decode(await get("manifest.json")));
    const bytes = manifest.models.flatMap((m) => PRECISIONS.map((p) => m.files[p].bytes))
      .reduce((a, b) => a + b);
    $("models").textContent = manifest.models.map((m) => m.title).join(" and ");
    $("cost").textContent =
      `Downloads about ${Math.ceil(bytes / 1e6) + ENGINE_MB} MB, then measures.`;
    $("start").addEventListener("click", () => run(manifest));
    $("start").disabled = false;
  } catch (error) {
    $("problem").textContent = error.message;
  }
}

begin();
