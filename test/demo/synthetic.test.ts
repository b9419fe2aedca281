import { SyntheticClip } from '../../lib/demo/synthetic.js';
import { sameBits } from './support.js';

test('draws the same frames each time and in any order', () => {
  const [width, height, frames] = [96, 64, 9];
  const one = new SyntheticClip(width, height, frames);
  const other = new SyntheticClip(width, height, frames);
  const forwards = Array.from({ length: frames }, (_, f) => one.frame(f));
  const backwards = Array.from({ length: frames }, (_, f) => other.frame(frames - 1 - f)).reverse();
  expect(forwards.every((frame, f) => sameBits(frame, backwards[f]!))).toBe(true);
});

test('moves: every frame differs from the one before', () => {
  const clip = new SyntheticClip(96, 64, 81);
  const frames = Array.from({ length: 81 }, (_, f) => clip.frame(f));
  const still = frames.filter((frame, f) => f > 0 && sameBits(frame, frames[f - 1]!));
  expect(still).toHaveLength(0);
});

test('has colours and texture for every feature to tell tokens apart', () => {
  const frame = new SyntheticClip(208, 112, 81).frame(40);
  for (let c = 0; c < 3; c++) {
    const channel = frame.filter((_, at) => at % 3 === c);
    const mean = channel.reduce((sum, value) => sum + value, 0) / channel.length;
    const variance = channel.reduce((sum, value) => sum + (value - mean) ** 2, 0) / channel.length;
    expect(Math.sqrt(variance)).toBeGreaterThan(20);
  }
});

test('a clip of one frame is its first', () => {
  expect(sameBits(new SyntheticClip(32, 32, 1).frame(0), new SyntheticClip(32, 32, 5).frame(0))).toBe(true);
});
