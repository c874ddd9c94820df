// The page: a photograph in, the class and the map out. Nothing leaves this machine.
import { Statistics, noiseStd, normals, prepare, saliency } from "./algorithm.js";

const $ = (id) => document.getElementById(id);
const tell = (text) => ($("status").textContent = text);
const pause = () => new Promise((done) => setTimeout(done));

/** ONNX Runtime and a session: WebGPU where it is there and right, else WebAssembly. */
async function open() {
  const model = await (await fetch("model.json")).json();
  const bytes = new Uint8Array(await (await fetch("gradients.onnx")).arrayBuffer());
  if (navigator.gpu && (await navigator.gpu.requestAdapter().catch(() => null))) {
    const runtime = await load("ort.webgpu.bundle.min.mjs");
    const wasm = await runtime.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    try {
      const gpu = await runtime.InferenceSession.create(bytes, { executionProviders: ["webgpu"] });
      if (await agree(runtime, model, gpu, wasm)) {
        return { runtime, model, session: gpu, provider: "WebGPU" };
      }
    } catch (error) {
      console.warn("WebGPU is not used:", error);
    }
    return { runtime, model, session: wasm, provider: threads(runtime) };
  }
  const runtime = await load("ort.wasm.bundle.min.mjs");
  const session = await runtime.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  return { runtime, model, session, provider: threads(runtime) };
}

async function load(name) {
  const runtime = await import(`./onnxruntime-web/${name}`);
  runtime.env.wasm.wasmPaths = new URL("onnxruntime-web/", document.baseURI).href;
  // Threads share memory, which browsers allow only with the two headers that serve.py sends.
  runtime.env.wasm.numThreads = crossOriginIsolated ? navigator.hardwareConcurrency : 1;
  return runtime;
}

const threads = (runtime) => `WebAssembly, ${runtime.env.wasm.numThreads} thread(s)`;

/** Whether two sessions give one image the same gradient, but for roundings. */
async function agree(runtime, model, first, second) {
  const size = model.mean.length * model.size ** 2;
  const image = normals(size, 1, 0);
  const [a, b] = [
    (await run({ runtime, model, session: first }, image, 0)).gradients,
    (await run({ runtime, model, session: second }, image, 0)).gradients,
  ];
  let difference = 0, sum = 0;
  for (let i = 0; i < size; i++) {
    difference += Math.abs(a[i] - b[i]);
    sum += Math.abs(b[i]);
  }
  return difference <= 0.05 * sum;
}

async function run({ runtime, model, session }, image, target) {
  const shape = [1, model.mean.length, model.size, model.size];
  const found = await session.run({
    images: new runtime.Tensor("float32", image, shape),
    targets: new runtime.Tensor("int64", BigInt64Array.of(BigInt(target)), [1]),
  });
  return { gradients: found.gradients.data, logits: found.logits.data };
}

/** Statistics of n gradients at noisy copies; `step` is called after each. */
export async function explain(opened, image, target, { n, noise, seed = 0, step = () => true }) {
  const { model } = opened;
  const statistics = new Statistics(image.length), std = noiseStd(image, noise);
  for (let sample = 0; sample < n; sample++) {
    const noisy = normals(image.length, seed, sample);
    for (let i = 0; i < noisy.length; i++) noisy[i] = image[i] + Math.fround(std) * noisy[i];
    statistics.update((await run(opened, noisy, target)).gradients);
    if (!step(sample + 1)) return null;
    await pause();
  }
  return statistics.finish(model.mean.length);
}

/** The photograph's pixels as the browser decodes them. */
export async function pixels(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

/** The most probable classes, [class, probability], the most probable one first. */
export function classes(logits, count) {
  const top = Math.max(...logits);
  const powers = Array.from(logits, (value) => Math.exp(value - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers
    .map((power, index) => [index, power / sum])
    .sort((a, b) => b[1] - a[1])
    .slice(0, count);
}

export { open, prepare, run, saliency };

// ---- what is on the page

const COLOURS = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];
let opened, image, statistics;
let turn = 0; // of the newest photograph or class: older ones stop

function colour(value) {
  const place = value * (COLOURS.length - 1), at = Math.min(Math.floor(place), COLOURS.length - 2);
  return COLOURS[at].map((low, i) => low + (COLOURS[at + 1][i] - low) * (place - at));
}

function draw() {
  if (!statistics) return;
  const p = Number($("p").value);
  $("percent").textContent = `p = ${p}`;
  const map = saliency(statistics, p), size = opened.model.size;
  const picture = new ImageData(size, size);
  map.forEach((value, i) => picture.data.set([...colour(value), 255], 4 * i));
  $("map").getContext("2d").putImageData(picture, 0, 0);
}

function show(prepared) {
  const { size, mean, std } = opened.model, picture = new ImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    for (let c = 0; c < 3; c++) {
      const from = mean.length === 1 ? 0 : c;
      picture.data[4 * i + c] = 255 * (prepared[from * size * size + i] * std[from] + mean[from]);
    }
    picture.data[4 * i + 3] = 255;
  }
  $("photo").getContext("2d").putImageData(picture, 0, 0);
}

async function take(blob) {
  const mine = ++turn;
  try {
    const found = await pixels(blob);
    image = prepare(found.data, found.width, found.height, opened.model);
    show(image);
    const { logits } = await run(opened, image, 0);
    if (mine !== turn) return;
    const choices = classes(logits, 5).map(([index, probability]) => {
      const name = opened.model.labels ? opened.model.labels[index] : `class ${index}`;
      return new Option(`${name} (${(100 * probability).toFixed(1)} %)`, index);
    });
    $("class").replaceChildren(...choices);
    await compute();
  } catch (error) {
    tell(`This picture cannot be explained: ${error.message ?? error}`);
  }
}

async function compute() {
  if (!image) return;
  const mine = ++turn, n = Number($("n").value), begin = performance.now();
  const step = (done) => {
    if (mine !== turn) return false;
    $("progress").value = done / n;
    tell(`${done} of ${n} gradients`);
    return true;
  };
  const noise = opened.model.noise;
  const found = await explain(opened, image, Number($("class").value), { n, noise, step });
  if (!found || mine !== turn) return;
  statistics = found;
  draw();
  tell(`${n} gradients in ${((performance.now() - begin) / 1000).toFixed(1)} s, ${opened.provider}`);
}

async function begin() {
  if (!$("drop")) return; // imported by another page
  try {
    opened = await open();
  } catch (error) {
    tell(`The classifier cannot be loaded: ${error.message ?? error}`);
    return;
  }
  const { size, name } = opened.model;
  for (const id of ["photo", "map"]) [$(id).width, $(id).height] = [size, size];
  $("model").textContent = name;
  tell(`ready (${opened.provider})`);
  $("file").disabled = false;
  $("file").addEventListener("change", () => $("file").files[0] && take($("file").files[0]));
  $("p").addEventListener("input", draw);
  $("class").addEventListener("change", compute);
  $("n").addEventListener("change", compute);
  const drop = $("drop");
  drop.addEventListener("dragover", (event) => event.preventDefault());
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
}

begin();
