/** The one typed description of the native addon; binding.ts loads it. */

/** The addon's interface this file describes; csrc/binding/addon.cpp has the same number. */
export const INTERFACE = 10;

declare const handleBrand: unique symbol;
/** One share of a device memory. Given back by `release`; the collector does it as a last resort. */
export interface Handle {
  readonly [handleBrand]: true;
}

/** Work that was recorded. Given back by `releaseGraph`, or by the collector. */
export interface NativeGraph {
  readonly [handleBrand]: 'graph';
}

/** A point in the time of a device's queue. */
export interface NativeMark {
  readonly [handleBrand]: 'mark';
}

/** An operation that was traced. */
export interface NativePart {
  /** As the addon calls it. */
  readonly name: string;
  readonly ms: number;
}

/** A grid of tokens, which the addon has checked. */
export interface NativeGrid {
  readonly [handleBrand]: 'grid';
}

/** CSR lists; absent where the operation takes lists: full lists. */
export interface NativeLists {
  offsets: Handle;
  indices: Handle;
  /** Number of indices. */
  count: number;
}

interface Dims {
  B: number;
  H: number;
  D: number;
}
interface KeyDims extends Dims {
  Hkv: number;
}
/** Rows of channels, in groups of as many rows each. */
interface Rows {
  /** Code of a dtype (lib/tensor/dtype.ts). */
  dtype: number;
  rows: number;
  width: number;
  groups: number;
}
interface Tokens {
  /** Code of a dtype (lib/tensor/dtype.ts). */
  dtype: number;
  /** 0: grid, 1: tiled. */
  order: number;
}

/** Inputs and outputs of coarse attention, which its backward takes as inputs. */
interface CoarseTensors extends KeyDims {
  Nq: number;
  Nk: number;
  scale: number;
  q: Handle;
  k: Handle;
  v: Handle;
  /** [B, H, Nq, Nk rounded up to a multiple of 4]: scale * dot(q, k), where they are there already. */
  scores?: Handle | undefined;
  output: Handle;
  lse: Handle;
}
/** The same of fine attention. */
interface FineTensors extends KeyDims, Tokens {
  qGrid: NativeGrid;
  kvGrid: NativeGrid;
  scale: number;
  lists: NativeLists | undefined;
  q: Handle;
  k: Handle;
  v: Handle;
  output: Handle;
  lse: Handle;
  /** 0 the fastest that take the problem, 1 portable ones, 2 Hopper's own. */
  kernels: number;
}

/**
 * Every operation puts its work on the queue of the device that its memory is on, and returns at once. Outputs are made
 * by the caller. Devices are numbers: -1 is the CPU, 0 and up are GPUs.
 */
export interface Native {
  interface: number;

  /** `[T, Y, X, ct, cy, cx, prefix]` */
  tileGrid(numbers: Float64Array): NativeGrid;

  /** `released`: a handle that was given back, to be used again. */
  alloc(bytes: number, device: number, released?: Handle): Handle;
  /** A handle without memory: the operation that gets it as an output makes that. So does one for a released handle. */
  handle(): Handle;
  retain(handle: Handle, released?: Handle): Handle;
  release(handle: Handle): void;
  /** Copies the source before it returns. `fresh`: nothing is queued on this memory yet, so write at once. */
  write(
    handle: Handle,
    offset: number,
    bytes: number,
    source: Exclude<ArrayBufferView, DataView>,
    fresh: boolean,
  ): void;
  read(handle: Handle, offset: number, bytes: number): Promise<ArrayBuffer>;
  readSync(handle: Handle, offset: number, bytes: number): ArrayBuffer;
  /** Copies all of a memory to one on another device; one of the two is the CPU. */
  transfer(from: Handle, to: Handle, bytes: number): void;
  synchronize(device: number): Promise<undefined>;
  memory(): { numTensors: number; numBytes: number };
  /** For tests: NaN-filled, guarded memory from now on. Returns the guard zones found damaged so far. */
  debugMemory(on: boolean): number;

  /** From here to `endTogether`, operations on a device are parts of one: its number is in together.ts. */
  beginTogether(device: number, operation: number): void;
  endTogether(device: number): void;

  /** A point in the time of a device's queue. */
  mark(device: number): NativeMark;
  /** Milliseconds between two marks of one device that its queue has passed. */
  elapsed(from: NativeMark, to: NativeMark): number;
  /** From here on every operation on a device is timed. */
  beginTrace(device: number): void;
  /** Waits for the device: every operation since, from the end of the one before it. */
  endTrace(device: number): NativePart[];
  /** Queues work that leaves nothing useful in the device's last-level cache; false if it can't. */
  flushCache(device: number): boolean;
  /** What a GPU's sensors say, null where they can't be read. */
  sensors(device: number): { smMhz: number | null; watts: number | null; celsius: number | null };

  /** Whether this thread is recording on a device. */
  capturing(device: number): boolean;
  beginCapture(device: number): void;
  endCapture(device: number, keep: boolean): NativeGraph | undefined;
  replay(graph: NativeGraph): void;
  releaseGraph(graph: NativeGraph): void;
  /** Memory of another owner on a GPU. */
  borrow(address: bigint, bytes: number, device: number): Handle;
  address(handle: Handle): bigint;
  deviceMemory(device: number): Record<'freeBytes' | 'totalBytes' | 'heldBytes' | 'usedBytes' | 'peakBytes', number>;
  resetPeakMemory(device: number): void;
  /** For tests: runs a kernel that faults, after which the GPU's context is lost. */
  fault(device: number): void;

  fill(p: { dtype: number; count: number; value: number; output: Handle }): void;
  cast(p: { from: number; to: number; count: number; x: Handle; output: Handle }): void;
  randomBits(p: { seed: bigint; count: number; output: Handle }): void;
  randomNormal(p: { dtype: number; seed: bigint; count: number; mean: number; std: number; output: Handle }): void;

  poolingForward(p: Dims & Tokens & { grid: NativeGrid; x: Handle; output: Handle }): void;
  poolingTogether(
    p: KeyDims &
      Tokens & {
        qGrid: NativeGrid;
        kvGrid: NativeGrid;
        q: Handle;
        qMeans: Handle;
        k: Handle;
        kMeans: Handle;
        /** Or neither. */
        v: Handle | undefined;
        vMeans: Handle | undefined;
      },
  ): void;
  poolingBackward(p: Dims & Tokens & { grid: NativeGrid; doutput: Handle; dx: Handle }): void;
  coarseForward(p: CoarseTensors): void;
  coarseBackward(p: CoarseTensors & { doutput: Handle; dq: Handle; dk: Handle; dv: Handle }): void;
  selection(
    p: KeyDims & {
      Nq: number;
      Nk: number;
      prefixQ: number;
      prefixK: number;
      topK: number;
      /** 0: exempt, 1: compete. */
      prefixMode: number;
      includeSelf: boolean;
      scale: number;
      q: Handle;
      k: Handle;
      scores?: Handle | undefined;
      /** Elements from a row of scores to the next: Nk, or Nk rounded up to a multiple of 4. */
      scoreStride: number;
      offsets: Handle;
      indices: Handle;
    },
  ): void;
  transposeLists(p: {
    B: number;
    H: number;
    rows: number;
    columns: number;
    lists: NativeLists;
    offsets: Handle;
    indices: Handle;
  }): void;
  listsToBits(p: {
    B: number;
    H: number;
    rows: number;
    columns: number;
    lists: NativeLists | undefined;
    bits: Handle;
  }): void;
  fineForward(
    p: FineTensors & {
      /** The gated combination of output, where one is wanted. */
      combined?: Handle | undefined;
      coarse?: Handle | undefined;
      coarseGate?: Handle | undefined;
      fineGate?: Handle | undefined;
    },
  ): void;
  fineBackward(
    p: FineTensors & {
      transposed: NativeLists | undefined;
      doutput: Handle;
      dqPooled?: Handle | undefined;
      dkPooled?: Handle | undefined;
      dvPooled?: Handle | undefined;
      delta: Handle;
      /** combinationBackward has made delta; else it is workspace. */
      deltaReady: boolean;
      dq: Handle;
      dk: Handle;
      dv: Handle;
    },
  ): void;
  combinationForward(
    p: Dims &
      Tokens & {
        grid: NativeGrid;
        fine: Handle;
        coarse?: Handle | undefined;
        coarseGate?: Handle | undefined;
        fineGate?: Handle | undefined;
        output: Handle;
      },
  ): void;
  combinationBackward(
    p: Dims &
      Tokens & {
        grid: NativeGrid;
        fine?: Handle | undefined;
        coarse?: Handle | undefined;
        coarseGate?: Handle | undefined;
        fineGate?: Handle | undefined;
        doutput: Handle;
        dfine?: Handle | undefined;
        dcoarse?: Handle | undefined;
        dcoarseGate?: Handle | undefined;
        dfineGate?: Handle | undefined;
        /** float32 `[B, H, rows]` = rowsum(dfine * fine), what fineBackward wants. */
        delta?: Handle | undefined;
      },
  ): void;
  tiling(p: { B: number; rowBytes: number; grid: NativeGrid; to: number; x: Handle; output: Handle }): void;

  matrixProduct(p: {
    dtype: number;
    outputDtype: number;
    M: number;
    N: number;
    K: number;
    transposeA: boolean;
    transposeB: boolean;
    a: Handle;
    b: Handle;
    bias?: Handle | undefined;
    output: Handle;
  }): void;
  columnSum(p: { dtype: number; rows: number; columns: number; x: Handle; output: Handle }): void;
  normForward(
    p: Rows & {
      rms: boolean;
      onePlus: boolean;
      eps: number;
      x: Handle;
      gain?: Handle | undefined;
      shift?: Handle | undefined;
      output: Handle;
      mean?: Handle | undefined;
      rstd: Handle;
    },
  ): void;
  normBackward(
    p: Rows & {
      rms: boolean;
      onePlus: boolean;
      x: Handle;
      gain?: Handle | undefined;
      mean?: Handle | undefined;
      rstd: Handle;
      doutput: Handle;
      dx: Handle;
      dgain?: Handle | undefined;
      dshift?: Handle | undefined;
    },
  ): void;
  rotary(p: {
    dtype: number;
    B: number;
    L: number;
    H: number;
    D: number;
    inverse: boolean;
    x: Handle;
    table: Handle;
    output: Handle;
  }): void;
  /** `kind` 0: SiLU, 1: GELU-tanh. */
  activationForward(p: { dtype: number; kind: number; count: number; x: Handle; output: Handle }): void;
  activationBackward(p: { dtype: number; kind: number; count: number; x: Handle; doutput: Handle; dx: Handle }): void;
  add(p: {
    dtype: number;
    count: number;
    bCount: number;
    alpha: number;
    beta: number;
    a: Handle;
    b?: Handle | undefined;
    output: Handle;
  }): void;
  multiply(p: { dtype: number; count: number; a: Handle; b: Handle; output: Handle }): void;
  gatedResidualForward(p: Rows & { x: Handle; branch: Handle; gate: Handle; output: Handle }): void;
  gatedResidualBackward(
    p: Rows & { branch: Handle; gate: Handle; doutput: Handle; dbranch: Handle; dgate: Handle },
  ): void;
  sum(p: { dtype: number; count: number; scale: number; x: Handle; output: Handle }): void;
  spread(p: { dtype: number; count: number; scale: number; x: Handle; output: Handle }): void;
  squaredErrorForward(p: { dtype: number; count: number; prediction: Handle; target: Handle; output: Handle }): void;
  squaredErrorBackward(p: {
    dtype: number;
    count: number;
    prediction: Handle;
    target: Handle;
    doutput: Handle;
    dprediction: Handle;
  }): void;
  /** All in bytes but `rows`. */
  copyRows(p: {
    rows: number;
    bytes: number;
    xStride: number;
    outputStride: number;
    xOffset: number;
    outputOffset: number;
    x: Handle;
    output: Handle;
  }): void;
  adamW(p: {
    counts: readonly number[];
    values: readonly Handle[];
    gradients: readonly Handle[];
    firsts: readonly Handle[];
    seconds: readonly Handle[];
    beta1: number;
    beta2: number;
    eps: number;
    weightDecay: number;
    /** float32: learning rate, 1 - beta1^step, 1 - beta2^step. */
    rates: Handle;
    gradientScale?: Handle | undefined;
  }): void;
  gradientNorm(p: { counts: readonly number[]; gradients: readonly Handle[]; maxNorm: number; output: Handle }): void;
  movingAverage(p: {
    counts: readonly number[];
    averages: readonly Handle[];
    values: readonly Handle[];
    decay: number;
  }): void;

  build(): NativeBuild;
  cudaStatus(): NativeCudaStatus;
  threads(): number;
  setThreads(count: number): void;
}

export interface NativeBuild {
  version: string;
  commit: string;
  compiler: string;
  /** That the CPU backend uses on this processor: 'avx512', 'avx2' or 'generic'. */
  instructionSet: string;
  /** Version of nvcc; null in a CPU-only addon. */
  cuda: string | null;
  cudaArchitectures: string | null;
}

export interface NativeCudaStatus {
  /** Why there is no device; empty if there is one. */
  problem: string;
  /** As CUDA counts: 13000 is 13.0; 0 without a driver. */
  driverVersion: number;
  runtimeVersion: number;
  devices: {
    index: number;
    name: string;
    computeCapability: string;
    /** Bytes. */
    totalMemory: number;
    /** This build holds code that the device runs. */
    hasCode: boolean;
  }[];
}
