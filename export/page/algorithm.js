// Guided AbsoluteGrad in the browser: everything that is not the classifier. Pure functions of
// typed arrays; images are [C,H,W], as the network takes them.

/** Philox4x32-10 (Salmon et al. 2011): four random 32-bit integers of a counter and a key. */
function philox(c0, c1, c2, c3, k0, k1) {
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = product(c0, 0xd2511f53);
    const [high1, low1] = product(c2, 0xcd9e8d57);
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** The two halves of a 64-bit product of 32-bit integers. */
function product(a, b) {
  const a0 = a & 0xffff, a1 = a >>> 16, b0 = b & 0xffff, b1 = b >>> 16;
  const low = a0 * b0;
  const middle = a1 * b0 + (low >>> 16);
  const cross = a0 * b1 + (middle & 0xffff);
  const high = a1 * b1 + Math.floor(middle / 65536) + Math.floor(cross / 65536);
  return [high >>> 0, Math.imul(a, b) >>> 0];
}

/** Standard normals of (seed, image key 0, sample): those of gag_fast.explain(image_ids=[0]). */
export function normals(count, seed, sample) {
  const found = new Float32Array(count);
  for (let quad = 0; quad * 4 < count; quad++) {
    const x = philox(quad, sample, 0, 0, seed >>> 0, 0);
    for (let pair = 0; pair < 2; pair++) {
      const u = ((x[2 * pair] >>> 1) + 0.5) / 2147483648;
      const r = Math.sqrt(-2 * Math.log(u));
      const turn = (2 * Math.PI * x[2 * pair + 1]) / 4294967296;
      found[4 * quad + 2 * pair] = r * Math.cos(turn);
      found[4 * quad + 2 * pair + 1] = r * Math.sin(turn);
    }
  }
  return found;
}

/** Standard deviation of the noise: a fraction of the image's range. */
export function noiseStd(image, fraction) {
  let low = Infinity, high = -Infinity;
  for (const value of image) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return fraction * (high - low);
}

/** Running mean, squared deviations and sum of |g| of the gradients (Welford). */
export class Statistics {
  constructor(size) {
    this.count = 0;
    this.mean = new Float64Array(size);
    this.m2 = new Float64Array(size);
    this.total = new Float64Array(size);
  }

  update(gradient) {
    this.count += 1;
    for (let i = 0; i < gradient.length; i++) {
      const off = gradient[i] - this.mean[i];
      this.mean[i] += off / this.count;
      this.m2[i] += off * (gradient[i] - this.mean[i]);
      this.total[i] += Math.abs(gradient[i]);
    }
  }

  /** Absolute mean and variance, the latter sorted too, by channel: what a map of any p needs. */
  finish(channels) {
    const size = this.mean.length / channels;
    const divisor = Math.max(this.count - 1, 1);
    const variance = this.m2.map((value) => value / divisor);
    const absmean = this.total.map((value) => value / this.count);
    const sorted = [];
    for (let c = 0; c < channels; c++) {
      sorted.push(variance.slice(c * size, (c + 1) * size).sort());
    }
    return { channels, size, variance, absmean, sorted };
  }
}

/** Algorithm 1: the map [H*W] in [0, 1] for a percent p (linear percentile, guide, min-max). */
export function saliency({ channels, size, variance, absmean, sorted }, p) {
  const map = new Float64Array(size);
  for (let c = 0; c < channels; c++) {
    const rank = (p / 100) * (size - 1);
    const below = Math.floor(rank), above = Math.min(below + 1, size - 1);
    const values = sorted[c];
    const q = values[below] + (values[above] - values[below]) * (rank - below);
    for (let i = 0, at = c * size; i < size; i++, at++) {
      map[i] += (variance[at] >= q ? 1 : variance[at]) * absmean[at];
    }
  }
  let low = Infinity, high = -Infinity;
  for (const value of map) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const span = high > low ? high - low : 1;
  return map.map((value) => (value - low) / span);
}

/** RGBA pixels as the model's input: resized as Pillow does, cropped, normalised. */
export function prepare(rgba, width, height, model) {
  const channels = model.mean.length, size = model.size;
  let pixels = planes(rgba, width * height, channels);
  let left = 0, top = 0, newWidth = size, newHeight = size;
  if (model.crop) {
    const long = Math.floor((model.resize * Math.max(width, height)) / Math.min(width, height));
    [newWidth, newHeight] = width <= height ? [model.resize, long] : [long, model.resize];
    left = halfEven((newWidth - size) / 2);
    top = halfEven((newHeight - size) / 2);
  }
  pixels = pixels.map((plane) => resize(plane, width, height, newWidth, newHeight, model));
  const image = new Float32Array(channels * size * size);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        const value = pixels[c][(y + top) * newWidth + x + left];
        image[(c * size + y) * size + x] = (value / 255 - model.mean[c]) / model.std[c];
      }
    }
  }
  return image;
}

function planes(rgba, count, channels) {
  const found = Array.from({ length: channels }, () => new Uint8ClampedArray(count));
  for (let i = 0; i < count; i++) {
    const [r, g, b] = [rgba[4 * i], rgba[4 * i + 1], rgba[4 * i + 2]];
    if (channels === 1) {
      found[0][i] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    } else {
      [found[0][i], found[1][i], found[2][i]] = [r, g, b];
    }
  }
  return found;
}

function halfEven(value) {
  const down = Math.floor(value);
  return value - down === 0.5 ? down + (down % 2) : Math.round(value);
}

/** Pillow's antialiased resize of one channel: columns first, rounded to bytes after each pass. */
function resize(plane, width, height, newWidth, newHeight, { interpolation }) {
  const kernel = interpolation === "bicubic" ? cubic : triangle;
  let found = plane;
  if (newWidth !== width) {
    const windows = weights(width, newWidth, kernel);
    found = new Uint8ClampedArray(newWidth * height);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < newWidth; x++) {
        found[y * newWidth + x] = dot(plane, y * width, 1, windows[x]);
      }
    }
  }
  if (newHeight !== height) {
    const windows = weights(height, newHeight, kernel), rows = found;
    found = new Uint8ClampedArray(newWidth * newHeight);
    for (let y = 0; y < newHeight; y++) {
      for (let x = 0; x < newWidth; x++) {
        found[y * newWidth + x] = dot(rows, x, newWidth, windows[y]);
      }
    }
  }
  return found;
}

function dot(plane, start, step, { first, shares }) {
  let sum = UNIT / 2;
  for (let i = 0; i < shares.length; i++) sum += shares[i] * plane[start + (first + i) * step];
  return Math.floor(sum / UNIT);
}

const UNIT = 2 ** 22; // Pillow computes in integers of so many parts

const triangle = { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) };
const cubic = {
  support: 2,
  at(x) {
    const a = -0.5, d = Math.abs(x);
    if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
  },
};

function weights(size, newSize, { support, at }) {
  const scale = size / newSize, stretch = Math.max(scale, 1), reach = support * stretch;
  return Array.from({ length: newSize }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const last = Math.min(size, Math.trunc(centre + reach + 0.5));
    const shares = [];
    for (let x = first; x < last; x++) shares.push(at((x - centre + 0.5) / stretch));
    const sum = shares.reduce((a, b) => a + b, 0);
    const whole = (share) => Math.trunc((share / sum) * UNIT + (share < 0 ? -0.5 : 0.5));
    return { first, shares: shares.map(whole) };
  });
}
