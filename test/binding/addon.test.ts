/** An addon that is missing, or not the one that is wanted: a typed error at first use, which says what to do. */

import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DIST, ROOT, runNode, runProgram } from './node.js';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vsa-addon-'));
  cpSync(join(ROOT, 'dist'), join(folder, 'dist'), { recursive: true });
  cpSync(join(ROOT, 'package.json'), join(folder, 'package.json'));
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** The addon that this checkout runs. */
function realAddon(): Buffer {
  const build = createRequire(__filename)('node-gyp-build') as { path: (root: string) => string };
  return readFileSync(build.path(ROOT));
}

function putAddon(bytes: Buffer | string): void {
  mkdirSync(join(folder, 'build', 'Release'), { recursive: true });
  writeFileSync(join(folder, 'build', 'Release', 'vsa.node'), bytes);
}

interface Failure {
  name: string;
  code: string;
  message: string;
  vsaError: boolean;
  cause: string;
}

/** Loads the copy, calls something that needs the addon twice, and gives the two failures. */
async function failures(): Promise<[Failure, Failure]> {
  const outcome = await runNode(
    `const vsa = require('./dist/index.js');
    const failure = () => {
      try {
        vsa.Tensor.zeros([1]);
        return null;
      } catch ({ name, code, message, cause, ...rest }) {
        return { name, code, message, cause: String(cause), vsaError: Object.keys(rest).length > 0 };
      }
    };
    console.log(JSON.stringify([failure(), failure()]));`,
    { cwd: folder, env: { PREBUILDS_ONLY: '', VIDEO_SPARSE_ATTENTION_PREBUILD: '' } },
  );
  expect(outcome).toMatchObject({ code: 0, signal: null, stderr: '' });
  return JSON.parse(outcome.stdout) as [Failure, Failure];
}

test('the copy works with the real addon', async () => {
  putAddon(realAddon());
  expect(await failures()).toEqual([null, null]);
});

test('what needs no addon works without one', async () => {
  const outcome = await runNode(
    `const { TileGrid, topK, tidy, VsaError } = require('./dist/index.js');
    const grid = TileGrid.parse('21x30x52');
    console.log(grid.tileCount, topK(grid, { sparsity: 0.9 }), tidy(() => 7), typeof VsaError);`,
    { cwd: folder },
  );
  expect(outcome).toMatchObject({ code: 0, stderr: '', stdout: '624 63 7 function\n' });
});

test('none: ERR_ADDON_MISSING, every time, with where it was looked for and how to get it', async () => {
  const [first, second] = await failures();
  expect(first).toMatchObject({ name: 'VsaError', code: 'ERR_ADDON_MISSING' });
  expect(first.message).toContain(`got none for ${process.platform}-${process.arch}, Node ${process.versions.node}`);
  expect(first.message).toContain(folder);
  expect(first.message).toContain('npm rebuild video-sparse-attention');
  expect(first.cause).toContain('No native build was found');
  expect(second).toEqual(first);
});

/** The header's machine (e_machine, at 18) says another processor: 0xf3 is RISC-V. */
function forAnotherProcessor(): Buffer {
  const bytes = realAddon();
  bytes.writeUInt16LE(0xf3, 18);
  return bytes;
}

test.each([
  ['a text', () => 'this is no addon\n'],
  ['an empty file', () => ''],
  ['the first bytes of an addon', () => realAddon().subarray(0, 60)],
  ['an addon for another processor', forAnotherProcessor],
])('%s: ERR_ADDON_INCOMPATIBLE', async (_, bytes) => {
  putAddon(bytes());
  const [first] = await failures();
  expect(first).toMatchObject({ name: 'VsaError', code: 'ERR_ADDON_INCOMPATIBLE' });
  expect(first.message).toMatch(/got one that does not load \(.+\), wanted one built for /);
  expect(first.message).toContain(`${process.platform}-${process.arch}, Node ${process.versions.node}`);
  expect(first.message).toContain('npm rebuild video-sparse-attention');
  expect(first.cause).toContain('Error');
});

test('an addon of other sources: ERR_ADDON_INCOMPATIBLE, with both interface numbers', async () => {
  putAddon(realAddon());
  const path = join(folder, 'dist', 'native.js');
  const source = readFileSync(path, 'utf8');
  const interfaceNumber = Number(/INTERFACE = (\d+);/.exec(source)![1]);
  writeFileSync(path, source.replace(/INTERFACE = \d+;/, 'INTERFACE = 9999;'));
  const [first, second] = await failures();
  expect(first).toMatchObject({ name: 'VsaError', code: 'ERR_ADDON_INCOMPATIBLE' });
  expect(first.message).toContain(`got interface ${String(interfaceNumber)}, wanted 9999`);
  expect(second).toEqual(first);
});

test('another package’s addon: ERR_ADDON_INCOMPATIBLE', async () => {
  const others = join(ROOT, 'node_modules', '@swc');
  const name = readdirSync(others).find((one) => one.startsWith('core-'))!;
  const file = readdirSync(join(others, name)).find((one) => one.endsWith('.node'))!;
  putAddon(readFileSync(join(others, name, file)));
  const [first] = await failures();
  expect(first).toMatchObject({ name: 'VsaError', code: 'ERR_ADDON_INCOMPATIBLE' });
  expect(first.message).toContain('got interface undefined, wanted');
});

test('two copies of the package in one process, of one addon', async () => {
  putAddon(realAddon());
  const outcome = await runNode(
    `const [a, b] = [require('./dist/index.js'), require(${JSON.stringify(DIST)})];
    const [x, y] = [a.Tensor.full([2], 1), b.Tensor.full([3], 2)];
    console.log(a !== b, x.item === y.item, JSON.stringify([a.memory(), b.memory(), ...x.dataSync(), ...y.dataSync()]));`,
    { cwd: folder },
  );
  const [one, two] = ['{"numTensors":1,"numBytes":8}', '{"numTensors":1,"numBytes":12}'];
  expect(outcome).toMatchObject({ code: 0, stderr: '', stdout: `true false [${one},${two},1,1,2,2,2]\n` });
});

test('works where strings may not be compiled', async () => {
  const found = await runProgram(
    `const grid = new vsa.TileGrid({ tokens: '4x4x8' });
     const q = vsa.Tensor.full([1, 128, 1, 64], 1);
     const { output } = vsa.videoSparseAttention.forward({ q, k: q, v: q, grid, topK: 1, coarse: 'add' });
     let compiled = true;
     try { new Function('return 1')(); } catch { compiled = false; }
     report([compiled, output.dataSync()[77]]);`,
    { flags: ['--disallow-code-generation-from-strings'] },
  );
  expect(found).toEqual([false, 2]);
});
