/** The package as its users load it: what is built in dist, by require and by import. */

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { native } from '../lib/binding.js';
import { DIST, ROOT, runNode, runProgram } from './binding/node.js';

interface Manifest {
  name: string;
  version: string;
  main: string;
  types: string;
  exports: Record<string, string | Record<string, string>>;
  bin: Record<string, string>;
  engines: { node: string };
}

const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Manifest;

/** Every value the package exports; types leave no trace. */
const NAMES = [
  ...[
    'Device',
    'Graph',
    'OutOfMemoryError',
    'Tensor',
    'TileGrid',
    'TileLists',
    'VsaError',
    'VsaRangeError',
    'VsaTypeError',
  ],
  ...['blockSparseAttention', 'coarseAttention', 'denseAttention', 'gatedCombination', 'tilePooling', 'tileSelection'],
  ...['tile', 'untile', 'videoSparseAttention', 'annealedSparsity', 'topK'],
  ...['cpuThreads', 'device', 'keep', 'memory', 'setCpuThreads', 'tidy'],
];

test('require gives every export', async () => {
  const names = await runProgram('report(Object.keys(vsa));');
  expect(names).toEqual(expect.arrayContaining(NAMES));
});

test('import gives the same exports by name', async () => {
  const source = `
    import * as all from ${JSON.stringify(manifest.name)};
    import { ${NAMES.join(', ')} } from ${JSON.stringify(manifest.name)};
    import { createRequire } from 'node:module';
    const required = createRequire(${JSON.stringify(join(ROOT, 'test.js'))})(${JSON.stringify(manifest.name)});
    const names = Object.keys(all).filter((name) => name !== 'default' && name !== 'module.exports').sort();
    const same = [${NAMES.join(', ')}].every((value) => Object.values(required).includes(value));
    const x = Tensor.full([2], 4);
    console.log(JSON.stringify({ names, missing: Object.keys(required).filter((name) => !names.includes(name)), same,
      value: (await x.data())[1] }));`;
  const outcome = await runNode(source, { flags: ['--input-type=module'] });
  expect(outcome).toMatchObject({ code: 0, signal: null, stderr: '' });
  const { names, ...rest } = JSON.parse(outcome.stdout) as { names: string[] };
  expect(rest).toEqual({ missing: [], same: true, value: 4 });
  expect(names).toEqual(expect.arrayContaining(NAMES));
});

test('loading the package loads no addon, and starts no thread', async () => {
  const result = await runProgram(`
    const loaded = () => require('node:fs').readFileSync('/proc/self/maps', 'utf8').includes('.node');
    const before = loaded();
    vsa.Tensor.zeros([1]);
    report([before, loaded()]);`);
  expect(result).toEqual([false, true]);
});

test('the manifest names files that exist, and the addon is of its version', () => {
  const entry = manifest.exports['.'] as Record<string, string>;
  expect([entry['default'], entry['types']]).toEqual([manifest.main, manifest.types]);
  for (const file of [manifest.main, manifest.types, ...Object.values(manifest.bin)]) {
    expect([file, existsSync(join(ROOT, file))]).toEqual([file, true]);
  }
  expect(join(ROOT, manifest.main)).toBe(DIST);
  expect(native().build().version).toBe(manifest.version);
  expect(manifest.engines.node).toBe('>=20.17');
});

test('what is internal cannot be reached by name', async () => {
  const types = readFileSync(join(ROOT, manifest.types), 'utf8');
  expect(types).not.toMatch(/binding|native|Handle|emptyTensor|handleOf/);
  const outcome = await runNode(`require('${manifest.name}/dist/binding.js')`);
  expect(outcome.code).toBe(1);
  expect(outcome.stderr).toContain('ERR_PACKAGE_PATH_NOT_EXPORTED');
});
