// Times one model in each precision and compares its outputs with the host's.
/* global ort */

export const PRECISIONS = ["fp32", "int8"];
const SAMPLE_MS = 40; // browsers' clocks step by 0.1 ms and more: a shorter sample says little

/** Let the page draw itself. */
function pause() {
  return new Promise((resolve) => setTimeout(resolve, 10));
}

/** Load the engine; say how many threads it really uses. */
export async function loadEngine(binary) {
  ort.env.wasm.wasmBinary = binary;
  // It must be an absolute address: the engine resolves another one against its own file.
  ort.env.wasm.wasmPaths = new URL("ort/", document.baseURI).href;
  if (!globalThis.crossOriginIsolated) {
    ort.env.wasm.numThreads = 1; // what the engine would do anyway, without a word
  }
}

/** Threads of the engine, known once it has loaded a model. */
export function threads() {
  return globalThis.crossOriginIsolated ? ort.env.wasm.numThreads : 1;
}

/** The value below which a share of sorted numbers lies, with linear interpolation. */
function quantile(sorted, share) {
  const position = (sorted.length - 1) * share;
  const low = Math.floor(position);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (position - low) * (sorted[high] - sorted[low]);
}

function argmax(values) {
  return values.indexOf(values.reduce((a, b) => Math.max(a, b)));
}

/** How well outputs agree with the host's: decibels (null: all equal) and the same classes. */
function agreement(outputs, references) {
  let signal = 0;
  let noise = 0;
  let same = 0;
  outputs.forEach((output, i) => {
    references[i].forEach((reference, j) => {
      signal += reference ** 2;
      noise += (reference - output[j]) ** 2;
    });
    same += argmax(output) === argmax(references[i]);
  });
  const decibels = noise > 0 ? 10 * Math.log10(signal / noise) : null;
  return { sqnr_db: decibels, top1: same / outputs.length };
}

async function runOnce(session, tensor) {
  const results = await session.run({ [session.inputNames[0]]: tensor });
  return Array.from(results[session.outputNames[0]].data);
}

async function timeCalls(session, tensor, calls) {
  const feeds = { [session.inputNames[0]]: tensor };
  const start = performance.now();
  for (let call = 0; call < calls; call += 1) {
    await session.run(feeds);
  }
  return (performance.now() - start) / calls;
}

/** How many calls make a sample long enough for the clock. */
async function callsNeeded(session, tensor) {
  let once = Infinity; // the quickest of three: something else may have disturbed one of them
  for (let trial = 0; trial < 3; trial += 1) {
    once = Math.min(once, await timeCalls(session, tensor, 2));
  }
  return Math.min(1000, Math.max(1, Math.ceil(SAMPLE_MS / once)));
}

/** Steps that measureModel announces. */
export function steps(model, rounds) {
  return PRECISIONS.length * (model.files.fp32.outputs.length + rounds);
}

/**
 * Measure a model.
 *
 * @param model its entry in the manifest
 * @param files precision -> ArrayBuffer of the ONNX file
 * @param inputs Float32Array of all reference inputs
 * @param rounds how often each precision is timed
 * @param step called after each step of the work
 * @returns precision -> what the report holds of it
 */
export async function measureModel(model, files, inputs, rounds, step) {
  const size = model.shape.reduce((a, b) => a * b);
  const tensors = [];
  for (let start = 0; start < inputs.length; start += size) {
    tensors.push(new ort.Tensor("float32", inputs.subarray(start, start + size), model.shape));
  }
  const sessions = {};
  const result = {};
  const times = {};
  try {
    for (const precision of PRECISIONS) {
      const options = { executionProviders: ["wasm"] };
      const session = await ort.InferenceSession.create(files[precision], options);
      sessions[precision] = session;
      const outputs = [];
      for (const tensor of tensors) { // this also warms up
        outputs.push(await runOnce(session, tensor));
        step();
        await pause();
      }
      const calls = await callsNeeded(session, tensors[0]);
      times[precision] = [];
      result[precision] = {
        rounds, calls, ...agreement(outputs, model.files[precision].outputs),
      };
    }
    for (let round = 0; round < rounds; round += 1) {
      const order = round % 2 ? [...PRECISIONS].reverse() : PRECISIONS;
      for (const precision of order) {
        const { calls } = result[precision];
        times[precision].push(await timeCalls(sessions[precision], tensors[0], calls));
        step();
        await pause();
      }
    }
  } finally {
    for (const session of Object.values(sessions)) {
      await session.release();
    }
  }
  for (const precision of PRECISIONS) {
    const sorted = times[precision].sort((a, b) => a - b);
    result[precision].median_ms = quantile(sorted, 0.5);
    result[precision].q1_ms = quantile(sorted, 0.25);
    result[precision].q3_ms = quantile(sorted, 0.75);
  }
  return result;
}
