/** Clips as animated GIFs: what opens everywhere without a player. */
import { applyPalette, GIFEncoder, quantize } from 'gifenc';
import { writeFileAtomic } from '../files/atomic.js';
import { framePixels } from './shape.js';
import type { ClipShape } from './shape.js';
import { checkWriteOptions } from './writing.js';
import type { WriteClipOptions } from './writing.js';

/** Colours of a GIF. */
const COLORS = 256;
/** Pixels that the colours are chosen from: of a longer clip, every n-th. */
const SAMPLED_PIXELS = 1 << 18;

/**
 * Writes a clip as an animated GIF that repeats for ever. All frames share one palette of at most 256 colours, chosen
 * from all of them, so that colours do not flicker; nothing is dithered. A GIF counts hundredths of a second: the
 * frames' delays are rounded such that every frame starts within half of one of its time.
 * @throws VsaTypeError ERR_ARGUMENT, VsaRangeError ERR_SHAPE or ERR_ARGUMENT; VsaError ERR_FILE if the file cannot be
 *   written, which leaves a previous one as it was.
 */
export async function writeGif(path: string, options: WriteClipOptions): Promise<void> {
  const { frames, shape, fps, scale } = checkWriteOptions(options);
  await writeFileAtomic(path, encode(frames, shape, fps, scale));
}

/** The file's bytes, a piece for each frame; lets others run between frames. */
async function* encode(frames: Float32Array, shape: ClipShape, fps: number, scale: number): AsyncGenerator<Uint8Array> {
  const [count, H, W] = shape;
  const [height, width] = [H * scale, W * scale];
  const palette = paletteOf(frames, shape);
  const encoder = GIFEncoder();
  const hundredth = (frame: number): number => Math.round((frame * 100) / fps);
  for (let frame = 0; frame < count; frame++) {
    const rgba = framePixels({ frames, shape, scale, channels: 4, height, width }, frame);
    const delay = 10 * (hundredth(frame + 1) - hundredth(frame));
    encoder.writeFrame(applyPalette(rgba, palette), width, height, frame === 0 ? { palette, delay } : { delay });
    yield encoder.bytes();
    encoder.stream.reset();
    await new Promise((resume) => setImmediate(resume));
  }
  encoder.finish();
  yield encoder.bytes();
}

function paletteOf(frames: Float32Array, [F, H, W]: ClipShape): ReturnType<typeof quantize> {
  const step = Math.ceil((F * H * W) / SAMPLED_PIXELS);
  const count = Math.ceil((F * H * W) / step);
  const sample = new Float32Array(count * 3);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) sample[i * 3 + c] = frames[i * step * 3 + c]!;
  }
  const row = { frames: sample, shape: [1, 1, count] as const, scale: 1, height: 1, width: count };
  return quantize(framePixels({ ...row, channels: 4 }, 0), COLORS);
}
