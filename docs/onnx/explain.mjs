// guided_absgrad in Node, without Python: npm install onnxruntime-node, then
//   magick photo.jpg -resize 224x224^ -gravity center -extent 224x224 photo.ppm
//   node explain.mjs lite0.gag.onnx photo.ppm CLASS map.pgm [p [NOISE]]
// NOISE is a file of n x 3 x H x W float32 numbers, standard normal; without it they are drawn.
import { readFile, writeFile } from "node:fs/promises";
import ort from "onnxruntime-node";

const MEAN = [0.485, 0.456, 0.406], STD = [0.229, 0.224, 0.225]; // as the model was trained
const SAMPLES = 20;

const [file, photo, target, out, p = "85", noiseFile] = process.argv.slice(2);
const ppm = await readFile(photo);
const found = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(ppm.toString("latin1", 0, 64));
if (found === null) throw new Error(`${photo} is no PPM of three bytes a pixel`);
const [start, width, height] = [found[0].length, Number(found[1]), Number(found[2])];
const pixels = width * height;
const image = Float32Array.from({ length: 3 * pixels }, (_, i) => {
  const channel = Math.floor(i / pixels); // planes of one colour each, where the file has pixels
  return (ppm[start + 3 * (i % pixels) + channel] / 255 - MEAN[channel]) / STD[channel];
});

const normal = () => // Box and Muller's
  Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
const noise = noiseFile
  ? new Float32Array(new Uint8Array(await readFile(noiseFile)).buffer)
  : Float32Array.from({ length: SAMPLES * image.length }, normal);

const session = await ort.InferenceSession.create(file);
const { maps } = await session.run({
  images: new ort.Tensor("float32", image, [1, 3, height, width]),
  targets: new ort.Tensor("int64", [BigInt(target)], [1]),
  noise: new ort.Tensor("float32", noise, [noise.length / image.length, 3, height, width]),
  p: new ort.Tensor("float32", [Number(p)], [1]),
});
const grey = Uint8Array.from(maps.data, (value) => Math.round(255 * value));
await writeFile(out, Buffer.concat([Buffer.from(`P5 ${width} ${height} 255\n`), grey]));
