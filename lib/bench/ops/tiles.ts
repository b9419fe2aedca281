/** Operations on tiles: pooling, selection, lists. */

import { tilePooling } from '../../attention/pooling.js';
import { tileSelection } from '../../attention/selection.js';
import type { TileLists } from '../../attention/lists.js';
import type { FloatFormat } from '../../oracle/index.js';
import type { Tensor } from '../../tensor/tensor.js';
import { type HostLists, hostLists, summarize } from '../lists.js';
import { judgeList, sumByTile } from '../verdict/pooled.js';
import { gather, TileRows } from '../verdict/rows.js';
import { compareRows, listOf, placeText, queryTilesOf, sampleTiles } from '../verdict/tokens.js';
import { disposeAll, randomInputs, type Setup, type Workload } from '../workload.js';
import { deviceLists } from './attention.js';

type Pooled = ReturnType<typeof tilePooling.forward>;

export function poolWorkload(setup: Setup): Workload<Pooled, { x: Tensor }> {
  const { one } = setup;
  const { B, H, D, grid } = one;
  const order = one.order!;
  const { x } = randomInputs(setup, { x: [B, grid.rows(order), H, D] }, one.dtype as 'bfloat16') as { x: Tensor };
  let dPooled: Tensor;
  try {
    const other = { one: { ...one, seed: one.seed + 1 }, device: setup.device };
    dPooled = randomInputs(other, { dPooled: [B, grid.totalTileCount, H, D] }, 'float32')['dPooled']!;
  } catch (error) {
    x.dispose();
    throw error;
  }
  const rows = new TileRows(grid, order);
  const samples = sampleTiles(grid, B, H);
  return {
    summary: undefined,
    forward: () => tilePooling.forward({ x, grid, order, backend: one.backend }),
    backward: ({ saved }) => tilePooling.backward(saved, { output: dPooled }),
    async judgeForward({ output }, findings) {
      const wanted = [];
      for (const sample of samples) {
        const tokens = rows.of(sample.tile);
        const values = await gather(x, sample.b, sample.h, tokens);
        const tile = new Int32Array(tokens.length);
        const want = sumByTile({ exact: values, own: values }, tile, 1, D, [tokens.length]);
        wanted.push({ sample, rows: Int32Array.of(sample.tile), want });
      }
      await compareRows(findings, 'output', output, wanted, 'float32', 'tile');
    },
    async judgeBackward(_, { x: dx }, findings) {
      const wanted = [];
      for (const sample of samples) {
        const tokens = rows.of(sample.tile);
        const mean = (await gather(dPooled, sample.b, sample.h, Int32Array.of(sample.tile))).map(
          (value) => value / tokens.length,
        );
        const all = new Float64Array(tokens.length * D);
        for (let row = 0; row < tokens.length; row++) all.set(mean, row * D);
        wanted.push({ sample, rows: tokens, want: { exact: all, own: all.map(Math.fround) } });
      }
      await compareRows(findings, 'dx', dx, wanted, one.dtype as FloatFormat, 'tile');
    },
    dispose: () => disposeAll({ x, dPooled }),
  };
}

type Selected = ReturnType<typeof tileSelection.forward>;

export async function selectWorkload(setup: Setup): Promise<Workload<Selected>> {
  const { one } = setup;
  const { B, H, Hkv, D, grid } = one;
  const N = grid.totalTileCount;
  const tensors = randomInputs(setup, { q: [B, N, H, D], k: [B, N, Hkv, D] }, 'float32') as { q: Tensor; k: Tensor };
  const forward = () => tileSelection.forward({ ...tensors, grid, topK: one.K!, backend: one.backend });
  let chosen: HostLists | undefined;
  try {
    const { lists } = forward();
    chosen = await hostLists(lists);
    lists.dispose();
  } catch (error) {
    disposeAll(tensors);
    throw error;
  }
  const all = Int32Array.from({ length: N }, (_, tile) => tile);
  return {
    summary: summarize(chosen, grid, B * H),
    forward,
    async judgeForward({ lists }, findings) {
      const got = await hostLists(lists);
      for (const sample of sampleTiles(grid, B, H)) {
        const { b, h, tile } = sample;
        const k = await gather(tensors.k, b, Math.floor((h * Hkv) / H), all);
        const q = await gather(tensors.q, b, h, Int32Array.of(tile));
        judgeList({ list: listOf(got, one, sample), q, k, sample, one }, findings);
      }
    },
    dispose: () => disposeAll(tensors),
  };
}

/** Forward: bit rows. Backward: the transpose. */
export function listsWorkload(setup: Setup): Workload<{ bits: Tensor }, { transposed: TileLists }> {
  const { one } = setup;
  const { B, H, grid } = one;
  const lists = deviceLists(setup);
  const samples = sampleTiles(grid, B, H);
  return {
    summary: summarize(setup.lists, grid, B * H),
    forward: () => ({ bits: lists.bits() }),
    backward: () => ({ transposed: lists.transpose() }),
    async judgeForward({ bits }, findings) {
      const words = (await bits.data()) as Int32Array;
      const perRow = bits.shape[3]!;
      for (const sample of samples) {
        const want = new Int32Array(perRow);
        for (const tile of listOf(setup.lists, one, sample)) want[tile >> 5]! |= 1 << (tile & 31);
        const at = ((sample.b * H + sample.h) * grid.totalTileCount + sample.tile) * perRow;
        if (words.subarray(at, at + perRow).every((word, i) => word === want[i])) continue;
        findings.fail(`bits: they are not those of the list of ${placeText(sample)}`);
      }
    },
    async judgeBackward(_, { transposed }, findings) {
      const got = await hostLists(transposed);
      for (const sample of samples) {
        const want = queryTilesOf(setup.lists, one, sample);
        const list = listOf(got, one, sample);
        if (list.length === want.length && list.every((tile, i) => tile === want[i])) continue;
        findings.fail(
          `transpose: got ${list.length} query tiles, wanted ${want.length} for ${placeText(sample, 'key tile')}`,
        );
      }
    },
    dispose: () => lists.dispose(),
  };
}
