/** What the suites for a GPU share: the GPU, and their names where there is none. */

import { join } from 'node:path';
import { cudaProblem, cudaStatus, type Device, device } from '../../lib/device/device.js';
import type { Tensor } from '../../lib/tensor/tensor.js';
import { type NodeOptions, ROOT, runProgram } from '../binding/node.js';
import { here } from '../under-test.js';

/** Why nothing can run on a GPU; empty if it can. */
const PROBLEM = cudaProblem(here.type === 'cuda' ? here.index : 0);

/** The GPU under test. (Where there is none its suites are skipped, and the CPU stands for it.) */
export const gpu: Device = here.type === 'cuda' ? here : device(PROBLEM === '' ? 'cuda' : 'cpu');
export const cpu = device('cpu');
export const onGpu = { device: gpu };
export const onCpu = { device: cpu };

/** Skips a suite, and says so: of files whose tests are all skipped Jest prints no name. */
function skip(name: string, why: string, body: () => void): void {
  process.stderr.write(`skipped: ${name} (${why})\n`);
  describe.skip(`${name} (${why})`, body);
}

/** A suite that needs a GPU: where there is none it is skipped, and says so. */
export function describeGpu(name: string, body: () => void): void {
  if (PROBLEM === '') describe(name, body);
  else skip(name, `needs a GPU: ${PROBLEM}`, body);
}

/** A suite that needs a Hopper GPU. */
export function describeHopper(name: string, body: () => void): void {
  const capability = cudaStatus().devices.find(({ index }) => index === gpu.index)?.computeCapability;
  if (PROBLEM !== '' || capability === '9.0') describeGpu(name, body);
  else skip(name, `needs a GPU of compute capability 9.0, this has ${String(capability)}`, body);
}

/**
 * A suite that takes the memory that others would need: `npm run test:gpu` runs those one by one, after all others.
 */
export function describeGpuAlone(name: string, body: () => void): void {
  if (PROBLEM !== '' || process.env['VSA_TEST_GPU_ALONE'] === '1') describeGpu(name, body);
  else skip(name, 'needs the GPU for itself: npm run test:gpu', body);
}

/** The bytes of a tensor's values. */
export async function bytesOf(tensor: Tensor): Promise<Buffer> {
  const { buffer, byteOffset, byteLength } = await tensor.data();
  return Buffer.from(buffer, byteOffset, byteLength);
}

/**
 * Runs a program on the GPU (binding/node.ts) with `gpu`, the device, and `native`, the addon, in scope. It must end by
 * itself with 0 and print no error.
 */
export function runOnGpu(body: string, options: NodeOptions = {}): Promise<unknown> {
  const scope = `
    const { native } = require(${JSON.stringify(join(ROOT, 'dist', 'binding.js'))});
    const gpu = vsa.device('${gpu.toString()}');`;
  return runProgram(`${scope}${body}`, { ...options, device: 'cuda' });
}
