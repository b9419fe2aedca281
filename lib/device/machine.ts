/** What GPUs can do at best, by name. */

export interface Machine {
  /** Dense bfloat16 and float16 products with float32 sums on tensor cores, TFLOP/s. MFU is a share of this. */
  readonly bf16: number;
  /** Plain float32 multiply-adds, TFLOP/s: what float32 without TF32 runs on. */
  readonly fp32: number;
  /** HBM (or GDDR), GB/s. */
  readonly hbm: number;
  /** L2 to shared memory with all SMs, GB/s: the most that was measured; null where nobody has. */
  readonly l2: number | null;
  /** Shared memory, 128 bytes a clock and SM, reads and writes together, GB/s. */
  readonly shared: number;
  /** Bytes of the L2. */
  readonly cache: number;
}

const SHARED_BYTES_PER_CLOCK = 128;
const MIB = 2 ** 20;

/** @param clock At which the tensor peak is quoted, GHz. */
function gpu(
  sms: number,
  clock: number,
  { bf16, fp32, hbm, l2, cache }: { bf16: number; fp32: number; hbm: number; l2: number | null; cache: number },
): Machine {
  return { bf16, fp32, hbm, l2, shared: SHARED_BYTES_PER_CLOCK * sms * clock, cache: cache * MIB };
}

/**
 * Measured on the H100 SXM: bulk copies of random 16 KB tiles from a working set of 4 MB. From up to 40 MB it is 7500 to
 * 7800, but a bound must hold for small ones too. GB/s.
 */
const H100_L2 = 8100;
const H100_SXM = gpu(132, 1.83, { bf16: 989.4, fp32: 66.9, hbm: 3350, l2: H100_L2, cache: 50 });

/** By the driver's names. What is not here has no peak, and its rows no MFU and no bound: better than wrong ones. */
const MACHINES: readonly (readonly [RegExp, Machine])[] = [
  [/H100 (80GB HBM3|SXM)/, H100_SXM],
  // The L2 of the others of its kind is taken to go with SMs and clock.
  [
    /H100 PCIe/,
    gpu(114, 1.62, { bf16: 756, fp32: 51.2, hbm: 2039, l2: (H100_L2 * 114 * 1.62) / (132 * 1.83), cache: 50 }),
  ],
  // The H100's processor with more cache and faster memory.
  [/H200(?! NVL)/, { ...H100_SXM, hbm: 4800, cache: 60 * MIB }],
  [/A100.*80GB/, gpu(108, 1.41, { bf16: 312, fp32: 19.5, hbm: 2039, l2: null, cache: 40 })],
  [/A100/, gpu(108, 1.41, { bf16: 312, fp32: 19.5, hbm: 1555, l2: null, cache: 40 })],
  [/RTX 4090(?! D)/, gpu(128, 2.52, { bf16: 165.2, fp32: 82.6, hbm: 1008, l2: null, cache: 72 })],
  [/L40S/, gpu(142, 2.52, { bf16: 362, fp32: 91.6, hbm: 864, l2: null, cache: 48 })],
];

/** A GPU by its name; undefined for the CPU and for GPUs that are not in the table. */
export function machineOf(device: { readonly type: string; readonly name: string }): Machine | undefined {
  if (device.type !== 'cuda') return undefined;
  return MACHINES.find(([name]) => name.test(device.name))?.[1];
}
