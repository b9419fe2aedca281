#!/usr/bin/env node
// Rows of other implementations, as `vsa bench` writes its own: converts JSON lines with their times.
//
//   python3 bench/dense-baseline.py > baseline.jsonl
//   node bench/baseline-rows.mjs [--like rows.jsonl] [--out FILE] < baseline.jsonl
//
// A line: { name: 'cudnn', shape: [B, H, L, D], device, forward_ms, backward_ms } or { name, shape, device, error }, as
// bench/dense-baseline.py prints it: triton.testing.do_bench around PyTorch's scaled_dot_product_attention.
// Two rows for each line, forward and backward, with `error` where a backend did not take the shape. Its timer empties
// the L2 before every call, so `cache` is 'cold'; it tells medians alone, and nobody has checked its results, so `ok`
// is null. The driver is that of the rows in --like, measured in the same run on the same GPU; `date` is that of the
// conversion. Lines that are no JSON (warnings) are passed over.
import { appendFileSync, readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { built } from './built.mjs';

const { attentionFlops, attentionLoad, boundOfSteps, fullCopies } =
  /** @type {typeof import('../lib/bench/bounds.js')} */ (built('bench/bounds.js'));
const { machineOf } = /** @type {typeof import('../lib/device/machine.js')} */ (built('device/machine.js'));

/** @typedef {import('../lib/bench/row.js').BenchRow} Row */
/**
 * A line of the input.
 * @typedef {object} Baseline
 * @property {string} name
 * @property {[number, number, number, number]} shape B, H, L, D
 * @property {string} device
 * @property {number} [forward_ms]
 * @property {number} [forward_tflops]
 * @property {number} [backward_ms]
 * @property {number} [backward_tflops]
 * @property {string} [error]
 */

const { values: options, positionals } = parseArgs({
  options: { like: { type: 'string' }, out: { type: 'string' } },
  allowPositionals: true,
});

/** @param {string} text JSON lines, and others */
function parseLines(text) {
  return text.split('\n').flatMap((line) => {
    if (!line.startsWith('{')) return [];
    try {
      return [/** @type {unknown} */ (JSON.parse(line))];
    } catch {
      return [];
    }
  });
}

const like = /** @type {Partial<Row> | undefined} */ (
  options.like === undefined ? undefined : parseLines(readFileSync(options.like, 'utf8'))[0]
);

/**
 * @param {Baseline} baseline
 * @param {'forward' | 'backward'} direction
 * @returns {Row}
 */
function rowOf(baseline, direction) {
  const { name, device } = baseline;
  const [B, H, L, D] = baseline.shape;
  const N = Math.ceil(L / 64);
  const ms = baseline[`${direction}_ms`] ?? null;
  // A sparse baseline has K tiles for every query tile; its own count of FLOP tells how many.
  const sparse = name.includes('sparse');
  const forward = (baseline.forward_ms ?? NaN) * (baseline.forward_tflops ?? NaN) * 1e9;
  const K = sparse ? Math.round(forward / (4 * B * H * L * 64 * D)) || null : N;
  const pairs = B * H * N * (K ?? NaN);
  const tokenPairs = sparse ? pairs * 4096 : B * H * L * L;
  const flops = attentionFlops(direction, tokenPairs, D);
  const known = ms === null || K === null ? null : flops / ms / 1e9;
  const tflops = baseline[`${direction}_tflops`] ?? known;
  const machine = machineOf({ type: 'cuda', name: device });
  const tensors = (direction === 'forward' ? 4 : 8) * B * H * L * D * 2 + 4 * B * H * L;
  const copies = sparse ? { keys: pairs, queries: pairs } : fullCopies(pairs);
  const load = attentionLoad(direction, { pairs, tokenPairs, D, size: 2, copies }, tensors);
  const bound = machine === undefined || K === null ? undefined : boundOfSteps(machine, [load], 'cold');
  return {
    op: sparse ? 'fine' : 'dense',
    direction,
    backend: sparse ? name.replace(/-?sparse/, '') : name,
    ...{ B, H, Hkv: H, grid: `1x1x${String(L)}`, tokens: L, slots: N * 64, D, dtype: 'bfloat16' },
    ...{ tiles: N, tile: '1x1x64', K, sparsity: K === null ? null : Number((1 - K / N).toFixed(4)) },
    ...{ lists: sparse ? 'random' : 'dense', data: 'randn', seed: null, overlap: sparse ? null : 1, order: 'grid' },
    ...{ prefix: 0, coarse: null, fineGate: null, cache: 'cold', graph: false, deterministic: null, forced: true },
    ...{ ms, ms_p10: null, ms_p90: null, samples: [], host_us: null, stages: {}, peak_bytes: null },
    gflop: K === null ? null : flops / 1e9,
    tflops,
    tflops_slots: tflops === null ? null : (tflops * pairs * 4096) / tokenPairs,
    mfu: tflops === null || machine === undefined ? null : Number((tflops / machine.bf16).toFixed(4)),
    gbs: ms === null ? null : tensors / ms / 1e6,
    bound: bound?.name ?? null,
    bound_ms: bound?.ms ?? null,
    bound_share: bound === undefined || ms === null ? null : Number((bound.ms / ms).toFixed(4)),
    // Nobody has compared its values: that it ran is all that is known.
    ok: ms === null ? false : null,
    error: ms === null ? (baseline.error ?? 'not measured') : null,
    ...{ device, driver: like?.driver ?? null, cuda: null, sm_mhz: null, watts: null, celsius: null },
    ...{ package: null, commit: null, date: new Date().toISOString() },
  };
}

const text = readFileSync(positionals[0] ?? 0, 'utf8');
for (const baseline of /** @type {Baseline[]} */ (parseLines(text))) {
  if (!Array.isArray(baseline.shape)) continue;
  for (const direction of /** @type {const} */ (['forward', 'backward'])) {
    const line = `${JSON.stringify(rowOf(baseline, direction))}\n`;
    if (options.out === undefined) process.stdout.write(line);
    else appendFileSync(options.out, line);
  }
}
