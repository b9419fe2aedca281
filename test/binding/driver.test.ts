/** A driver that is too old for this build's CUDA runtime: a library of that name which says no more than its version. */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { native } from '../../lib/binding.js';
import { runProgram } from './node.js';

function whyNot(): string {
  if (native().build().cuda === null) return 'needs an addon with CUDA';
  return spawnSync('g++', ['--version']).status === 0 ? '' : 'needs g++';
}

const why = whyNot();
const testDriver = why === '' ? test : test.skip;
let folder: string;
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), 'vsa-driver-'))));
afterAll(() => rmSync(folder, { recursive: true }));

testDriver(`a driver that is too old is named, with the one that is needed${why && ` (${why})`}`, async () => {
  const source = join(folder, 'driver.cpp');
  writeFileSync(source, 'extern "C" int cuDriverGetVersion(int* version) { return *version = 11040, 0; }\n');
  const made = spawnSync('g++', ['-shared', '-fPIC', '-o', join(folder, 'libcuda.so.1'), source], { encoding: 'utf8' });
  expect([made.status, made.stderr]).toEqual([0, '']);
  const paths = [folder, process.env['LD_LIBRARY_PATH'] ?? ''].filter(Boolean).join(':');
  const found = await runProgram(
    `try { vsa.device('cuda'); } catch (error) {
       const sum = vsa.Tensor.full([2], 3, { device: 'cpu' }).dataSync()[1];
       report([error instanceof vsa.VsaError, error.code, vsa.device().toString(), sum, error.message]);
     }`,
    { device: 'cuda', env: { LD_LIBRARY_PATH: paths } },
  );
  const [isTyped, code, best, value, message] = found as [boolean, string, string, number, string];
  expect([isTyped, code, best, value]).toEqual([true, 'ERR_DEVICE', 'cpu', 3]);
  expect(message).toMatch(
    /the NVIDIA driver serves CUDA 11\.4, this build has the CUDA \d+\.\d+ runtime, which needs a driver of the \d+ series or newer/,
  );
});
