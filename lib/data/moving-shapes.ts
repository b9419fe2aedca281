/**
 * A built-in generator of clips: discs, squares, triangles and seven-segment digits that move over a plain background,
 * bounce off the frame's edges, turn, and cover each other. Nothing is downloaded, and there are as many clips as asked.
 */
import { checkInteger, checkOptions } from '../validate.js';
import { show, VsaRangeError, VsaTypeError } from '../errors.js';
import { checkTriple } from '../media/shape.js';
import type { ClipShape } from '../media/shape.js';
import { colorOf, distanceOf, fillGradient, paint, REACH, SHAPE_KINDS } from './drawing.js';
import type { Color, Distance, ShapeKind } from './drawing.js';
import { Random } from './random.js';
import { checkClipIndex, MAX_CLIPS } from './source.js';
import type { ClipSource } from './source.js';

export interface MovingShapesOptions {
  /** Whole number from 0 to 2^53 - 1. Default 0. */
  seed?: number;
  /** Default 16. */
  frames?: number;
  /** Pixels. Default 64. */
  height?: number;
  width?: number;
  /** Fewest and most shapes of a clip, 1 to 32. Default [2, 4]. */
  shapes?: readonly [least: number, most: number];
  /** What they may be. Default all: 'disc', 'square', 'triangle', 'digit'. */
  kinds?: readonly ShapeKind[];
}

const OPTIONS = ['seed', 'frames', 'height', 'width', 'shapes', 'kinds'] as const;
const MAX_SHAPES = 32;

/** Radius, and way per frame along each axis, as shares of the frame's shorter side. */
const RADIUS = [0.13, 0.22] as const;
const SPEED = [0.012, 0.05] as const;
/** Tangent of half the angle that a shape turns per frame, and that a digit leans at most. */
const SPIN = 0.06;
const LEAN = 0.12;
/** Part of a round of hues between two shapes: the golden ratio keeps any number of them apart. */
const HUE_STEP = 0.618;
/** Sets these random numbers apart from those of the shuffling. */
const STREAM = 1;

const { abs, max, min } = Math;

interface Settings {
  seed: number;
  shape: ClipShape;
  shapes: readonly [number, number];
  kinds: readonly ShapeKind[];
}

function settingsOf(options: MovingShapesOptions): Settings {
  const { frames = 16, height = 64, width = 64, shapes = [2, 4], kinds = SHAPE_KINDS } = options;
  const seed = checkInteger('seed', options.seed ?? 0, 0);
  const shape = checkTriple('frames, height, width', [frames, height, width], 'frames, height, width');
  if (!Array.isArray(shapes) || shapes.length !== 2) {
    const details = { argument: 'shapes', got: show(shapes), wanted: '[least, most]' };
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', ...details });
  }
  const least = checkInteger('shapes[0]', shapes[0], 1, MAX_SHAPES);
  const most = checkInteger('shapes[1]', shapes[1], least, MAX_SHAPES);
  if (!Array.isArray(kinds) || kinds.length === 0 || !kinds.every((kind) => SHAPE_KINDS.includes(kind as ShapeKind))) {
    const wanted = `some of ${SHAPE_KINDS.map(show).join(', ')}`;
    throw new VsaRangeError({ code: 'ERR_ARGUMENT', argument: 'kinds', got: show(kinds), wanted });
  }
  return { seed, shape, shapes: [least, most], kinds: [...(kinds as readonly ShapeKind[])] };
}

/**
 * One clip of moving shapes. It depends on the options and on `index` alone: not on the clips made before, on the
 * machine, or on the version of Node.
 * @param options index: which clip, a whole number of at least 0, default 0
 * @returns float32 RGB in [-1, 1], [frames, height, width, 3]
 * @throws VsaTypeError ERR_ARGUMENT; VsaRangeError ERR_ARGUMENT or ERR_SHAPE.
 */
export function movingShapes(options: MovingShapesOptions & { index?: number } = {}): Float32Array {
  checkOptions('options', options, [...OPTIONS, 'index']);
  return draw(settingsOf(options), checkInteger('index', options.index ?? 0, 0));
}

/** Clips of `movingShapes`, clip i that of index i. */
export class MovingShapes implements ClipSource {
  readonly count: number;
  readonly shape: ClipShape;
  readonly #settings: Settings;

  /**
   * @param options count: how many clips an epoch has, default Infinity: no clip comes twice
   * @throws VsaTypeError ERR_ARGUMENT; VsaRangeError ERR_ARGUMENT or ERR_SHAPE.
   */
  constructor(options: MovingShapesOptions & { count?: number } = {}) {
    checkOptions('options', options, [...OPTIONS, 'count']);
    const { count = Infinity } = options;
    this.count = count === Infinity ? count : checkInteger('count', count, 1, MAX_CLIPS);
    this.#settings = settingsOf(options);
    this.shape = this.#settings.shape;
  }

  /** @returns float32 RGB in [-1, 1], [frames, height, width, 3] */
  clip(index: number): Promise<Float32Array> {
    return new Promise((resolve) => resolve(draw(this.#settings, checkClipIndex(index, this.count))));
  }

  describe(): { readonly kind: 'movingShapes'; readonly options: MovingShapesOptions & { count: number } } {
    const { seed, shapes, kinds } = this.#settings;
    const [frames, height, width] = this.shape;
    return { kind: 'movingShapes', options: { seed, frames, height, width, shapes, kinds, count: this.count } };
  }
}

/** Something that moves to and fro between two edges. */
interface Way {
  /** Where the shape's centre is nearest to the first edge. */
  edge: number;
  start: number;
  perFrame: number;
  /** 0 where the shape fills the frame. */
  length: number;
}

interface Mover {
  distance: Distance;
  color: Color;
  reach: number;
  x: Way;
  y: Way;
  /** The rotation of the first frame, and from one to the next: (cos, sin). */
  angle: readonly [number, number];
  turn: readonly [number, number];
}

function draw({ seed, shape, shapes, kinds }: Settings, index: number): Float32Array {
  const [F, H, W] = shape;
  const random = new Random(STREAM, seed, index);
  const frames = new Float32Array(F * H * W * 3);
  const hue = random.between(0, 1);
  const shade = (): Color => colorOf(hue, random.between(0.2, 0.6), random.between(0.08, 0.4));
  fillGradient(frames, shape, shade(), shade());
  const count = shapes[0] + random.below(shapes[1] - shapes[0] + 1);
  for (let i = 1; i <= count; i++) {
    const mover = makeMover(random, random.of(kinds), H, W, hue + i * HUE_STEP);
    let [cos, sin] = mover.angle;
    const [turnCos, turnSin] = mover.turn;
    for (let frame = 0; frame < F; frame++) {
      const place = { x: along(mover.x, frame), y: along(mover.y, frame), cos, sin };
      paint(frames, frame * H * W * 3, H, W, { ...mover, ...place });
      [cos, sin] = [cos * turnCos - sin * turnSin, cos * turnSin + sin * turnCos];
    }
  }
  return frames;
}

function makeMover(random: Random, kind: ShapeKind, height: number, width: number, hue: number): Mover {
  const side = min(height, width);
  const radius = side * random.between(...RADIUS);
  const reach = radius * REACH + 1; // a pixel for the soft edge
  const way = (size: number): Way => {
    const length = max(0, size - 2 * reach);
    const perFrame = random.sign() * side * random.between(...SPEED);
    return { edge: min(reach, size / 2), start: random.between(0, length), perFrame, length };
  };
  const upright = kind === 'digit';
  return {
    distance: distanceOf(kind, radius, random.below(10)),
    color: colorOf(hue % 1, random.between(0.35, 0.95), random.between(0.8, 1)),
    ...{ reach, x: way(width), y: way(height) },
    angle: rotation(upright ? random.between(-LEAN, LEAN) : random.between(-1, 1)),
    turn: rotation(upright ? 0 : random.between(-SPIN, SPIN)),
  };
}

/** Cosine and sine of an angle by the tangent of its half: exact arithmetic, where engines differ in their sines. */
function rotation(tangent: number): readonly [cos: number, sin: number] {
  const scale = 1 / (1 + tangent * tangent);
  return [(1 - tangent * tangent) * scale, 2 * tangent * scale];
}

/** Where something is in a frame: the way unfolded, then folded at the edges. */
function along({ edge, start, perFrame, length }: Way, frame: number): number {
  if (length === 0) return edge;
  const place = abs((start + perFrame * frame) % (2 * length)); // the way is the same on both sides of 0
  return edge + (place <= length ? place : 2 * length - place);
}
