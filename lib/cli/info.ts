/** `vsa info`: what a bug report needs. */

import { availableParallelism, totalmem } from 'node:os';
import Table from 'cli-table3';
import { automaticBackend, backends, type BackendSupport } from '../attention/backends.js';
import { native, type NativeBuild, type NativeCudaStatus } from '../binding.js';
import { cpuThreads, cudaStatus, device } from '../device/device.js';
import { version } from '../version.js';
import { printJson } from './report.js';

interface Info {
  package: string;
  node: string;
  platform: string;
  addon: NativeBuild;
  cpu: { name: string; cores: number; threads: number; memory: number };
  cuda: NativeCudaStatus;
  /** For tensors on each device that can be used. */
  backends: Record<string, BackendSupport[]>;
  /** What calls without a backend get there. */
  automatic: Record<string, string>;
}

function gather(): Info {
  const cuda = cudaStatus();
  const gpus = cuda.devices.filter((gpu) => gpu.hasCode).map((gpu) => device(`cuda:${gpu.index}`));
  const devices = [device('cpu'), ...gpus];
  return {
    package: version,
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    addon: native().build(),
    cpu: { name: device('cpu').name, cores: availableParallelism(), threads: cpuThreads(), memory: totalmem() },
    cuda,
    backends: Object.fromEntries(devices.map((one) => [one.toString(), backends(one)])),
    automatic: Object.fromEntries(devices.map((one) => [one.toString(), automaticBackend(one)])),
  };
}

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
/** 13000 is 13.0. */
const cudaVersion = (n: number): string => `${String(Math.floor(n / 1000))}.${String(Math.floor((n % 1000) / 10))}`;

function facts({ addon, cpu, cuda, ...info }: Info): [string, string][] {
  const built = addon.cuda === null ? 'CPU only' : `CPU and CUDA ${addon.cuda} for ${String(addon.cudaArchitectures)}`;
  const gpus = cuda.devices.map(
    (gpu) =>
      `cuda:${String(gpu.index)} ${gpu.name}, compute capability ${gpu.computeCapability}, ${gib(gpu.totalMemory)}` +
      (gpu.hasCode ? '' : ', which this addon has no code for'),
  );
  const driver = cuda.driverVersion === 0 ? 'none' : `for CUDA up to ${cudaVersion(cuda.driverVersion)}`;
  return [
    ['package', `video-sparse-attention ${info.package}`],
    ['addon', `${addon.version} (${addon.commit}), ${built}, ${addon.compiler}`],
    ['node', `${info.node} on ${info.platform}`],
    ['cpu', `${cpu.name}, ${String(cpu.cores)} cores, ${gib(cpu.memory)}`],
    ['cpu backend', `${String(cpu.threads)} threads, ${addon.instructionSet} kernels`],
    ['NVIDIA driver', driver],
    ['GPUs', gpus.length > 0 ? gpus.join('\n') : `none: ${cuda.problem}`],
  ];
}

/** Operations down, backends across; every reason once, below. */
function backendTable(on: string, rows: readonly BackendSupport[], automatic: string): string {
  const names = [...new Set(rows.map((row) => row.backend))];
  const reasons = [...new Set(rows.map((row) => row.why).filter((why) => why !== ''))];
  const table = new Table({
    head: [`operation on ${on} tensors`, ...names],
    style: { head: [], border: [], compact: true },
  });
  for (const operation of new Set(rows.map((row) => row.operation))) {
    const cells = names.map((name) => {
      const row = rows.find((one) => one.operation === operation && one.backend === name);
      return row?.serves === true ? 'serves' : `no (${String(reasons.indexOf(row?.why ?? '') + 1)})`;
    });
    table.push([operation, ...cells]);
  }
  return [
    table.toString(),
    `without backend: ${automatic}`,
    ...reasons.map((why, i) => `(${String(i + 1)}) ${why}`),
  ].join('\n');
}

export function runInfo(options: { json: boolean }): void {
  const info = gather();
  if (options.json) {
    printJson(info);
    return;
  }
  const table = new Table({ style: { head: [], border: [], compact: true } });
  for (const [name, value] of facts(info)) table.push([name, value]);
  const tables = Object.entries(info.backends).map(([on, rows]) => backendTable(on, rows, info.automatic[on]!));
  process.stdout.write(`${[table.toString(), ...tables].join('\n\n')}\n`);
}
