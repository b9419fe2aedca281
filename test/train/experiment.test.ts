/** bench/experiment.mjs at the size of a toy: interrupted, with an arm that crashed, and to its end. Runs dist. */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { readCheckpointFacts } from '../../lib/train/checkpoint.js';
import { here } from '../under-test.js';
import { checkpointOf, rowsOf, temporaryFolder } from './support.js';

const folder = temporaryFolder();
const [runs, results] = [join(folder, 'runs'), join(folder, 'results')];
const ALL = ['adapted.gif', 'adapted.jsonl', 'full.gif', 'full.jsonl', 'report.html', 'summary.json', 'vsa.gif'];
const STEPS = 12;

interface Difference {
  mean: number;
  standardError: number;
}
interface Summary {
  arms: Record<string, { done: boolean; steps: number; flop: number; topK: number | null; heldOut: unknown }>;
  vsaAgainstFull: { window: number; reaches: { step: number; flopRatio: number } | null; heldOutDifference: unknown };
  adaptedAgainstFull: {
    withDenseTraining: { flop: number };
    unadaptedDifference: { averages: Difference; weights: Difference };
  };
}

function experiment(minutes: string, ...more: string[]) {
  const script = resolve(__dirname, '../../bench/experiment.mjs');
  const sizes = ['--preset', 'tiny', '--steps', String(STEPS), '--adapt-steps', '8', '--held-out', '2'];
  const args = [script, ...sizes, '--device', here.toString(), '--minutes', minutes, '--runs', runs, ...more];
  return spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 170_000 });
}

const summary = () => JSON.parse(readFileSync(join(results, 'summary.json'), 'utf8')) as Summary;

test('stops in time, goes on, begins what crashed anew, and ends with all results', async () => {
  const first = experiment('0.01', '--results', results);
  expect({ status: first.status, stderr: first.stderr }).toEqual({ status: 3, stderr: '' });
  const { step } = await readCheckpointFacts(checkpointOf(join(runs, 'full')));
  expect(step).toBeLessThan(STEPS);
  // What there is so far is there already.
  expect(readdirSync(results).sort()).toEqual(['full.jsonl', 'summary.json']);
  expect(summary().arms).toMatchObject({ full: { done: false, steps: step, heldOut: null } });

  // As a crash before the first checkpoint leaves it.
  mkdirSync(join(runs, 'vsa'));
  writeFileSync(join(runs, 'vsa', 'log.jsonl'), '{"step":1,"loss":9}\n');
  const second = experiment('5', '--results', results);
  expect({ status: second.status, stderr: second.stderr }).toEqual({ status: 0, stderr: '' });
  expect(rowsOf(join(runs, 'vsa')).map((row) => row.step)).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
  expect(readdirSync(results).sort()).toEqual([...ALL, 'vsa.jsonl']);
  expect(readFileSync(join(results, 'report.html'), 'utf8')).toContain('full ends at a loss of');

  const { arms, vsaAgainstFull, adaptedAgainstFull } = summary();
  expect(arms).toMatchObject({
    full: { done: true, steps: STEPS, topK: null, settings: { seed: 1 } },
    vsa: { done: true, steps: STEPS, topK: 4, settings: { seed: 1 } },
    adapted: { done: true, steps: 8, topK: 4, settings: { seed: 2, adapt: 'full/checkpoint.safetensors' } },
  });
  expect(vsaAgainstFull.window).toBe(10);
  expect(vsaAgainstFull.heldOutDifference).toMatchObject({ weights: { mean: expect.any(Number) as number } });
  const { withDenseTraining, unadaptedDifference } = adaptedAgainstFull;
  expect(withDenseTraining.flop).toBe(arms['full']!.flop + arms['adapted']!.flop);
  // Half of the tiles left out at once changes what dense weights say.
  expect(unadaptedDifference.weights.mean).not.toBe(0);
  expect(readFileSync(join(results, 'summary.json'), 'utf8')).not.toContain(folder);
}, 180_000);

test('runs of other settings, and an adaptation of nothing, are refused', () => {
  const other = experiment('1', '--steps', String(STEPS + 1));
  expect(other.status).toBe(1);
  expect(other.stderr).toContain('a folder of runs with the settings of this call');
  const alone = experiment('1', '--arms', 'adapted', '--runs', join(folder, 'nothing'));
  expect(alone.status).toBe(1);
  expect(alone.stderr).toContain("'full' before 'adapted'");
  expect(existsSync(join(folder, 'nothing', 'adapted'))).toBe(false);
  const misspelt = experiment('1', '--arms', 'full,sparse');
  expect(misspelt.stderr).toContain('--arms: got "sparse", wanted some of full, vsa, adapted');
});
