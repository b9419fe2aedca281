/** Checkpoints: everything a run needs to go on with the same bits, in one safetensors file. */

import type { Device } from '../device/device.js';
import { show, VsaError } from '../errors.js';
import { SafetensorsFile } from '../files/safetensors.js';
import { loadSafetensors, saveSafetensors } from '../files/tensors.js';
import type { Tensor } from '../tensor/tensor.js';
import { parseTrainOptions, type TrainSettings } from './settings.js';

/** What belongs to the run beside its tensors. */
export interface RunFacts {
  /** Steps that were taken. */
  readonly step: number;
  readonly settings: TrainSettings;
  /** Where the data goes on, as the loader gave it. */
  readonly position: unknown;
}

/** The tensors of a run by what they are for, each by name. */
export interface RunTensors {
  /** Weights. */
  readonly model: ReadonlyMap<string, Tensor>;
  /** The optimizer's moments and counters. */
  readonly optimizer: ReadonlyMap<string, Tensor>;
  /** Moving averages of the weights; empty where there are none. */
  readonly ema: ReadonlyMap<string, Tensor>;
}

const PARTS = ['model', 'optimizer', 'ema'] as const satisfies readonly (keyof RunTensors)[];
const KEY = 'vsa.train';
/** Of the file's layout. */
const VERSION = 1;

/**
 * Writes a checkpoint. It replaces the one of that name when it is complete, so that one is there at any time; the
 * tensors must not change before the promise settles.
 *
 * @throws VsaError ERR_FILE; the checkpoint before is then untouched.
 */
export async function saveCheckpoint(path: string, facts: RunFacts, tensors: RunTensors): Promise<void> {
  const named = PARTS.flatMap((part) =>
    [...tensors[part]].map(([name, tensor]) => [`${part}/${name}`, tensor] as const),
  );
  const metadata = { [KEY]: JSON.stringify({ version: VERSION, ...facts }) };
  await saveSafetensors(path, new Map(named), { metadata });
}

function parseFacts(path: string, text: string | undefined): RunFacts {
  const fail = (got: string, cause?: unknown): never => {
    throw new VsaError({
      code: 'ERR_FILE_FORMAT',
      argument: path,
      got,
      wanted: "a checkpoint that 'vsa train' wrote",
      cause,
    });
  };
  if (text === undefined) return fail('safetensors of another kind');
  let facts: { version?: unknown; step?: unknown; settings?: unknown; position?: unknown };
  try {
    facts = JSON.parse(text) as typeof facts;
  } catch (cause) {
    return fail('facts that are no JSON', cause);
  }
  const { version, step, settings, position } = facts;
  if (version !== VERSION) return fail(`version ${show(version)}`);
  if (typeof step !== 'number' || !Number.isSafeInteger(step) || step < 0) return fail(`step ${show(step)}`);
  try {
    const { adapt, ...rest } = settings as TrainSettings;
    return { step, position, settings: parseTrainOptions({ ...rest, ...(adapt !== null && { adapt }) }) };
  } catch (cause) {
    return fail('settings that are none', cause);
  }
}

/** What a checkpoint says of its run, without its tensors. */
export async function readCheckpointFacts(path: string): Promise<RunFacts> {
  const file = await SafetensorsFile.open(path);
  try {
    return parseFacts(path, file.metadata[KEY]);
  } finally {
    await file.close();
  }
}

/**
 * Loads a checkpoint, or some parts of it. The tensors are the caller's to dispose.
 *
 * @throws VsaError ERR_FILE, ERR_FILE_FORMAT; OutOfMemoryError.
 */
export async function loadCheckpoint(
  path: string,
  device: Device,
  parts: readonly (keyof RunTensors)[] = PARTS,
): Promise<{ facts: RunFacts; tensors: Record<keyof RunTensors, Map<string, Tensor>> }> {
  const file = await SafetensorsFile.open(path);
  let names: string[];
  let facts: RunFacts;
  try {
    facts = parseFacts(path, file.metadata[KEY]);
    names = [...file.names()].filter((name) => parts.some((part) => name.startsWith(`${part}/`)));
  } finally {
    await file.close();
  }
  const loaded = await loadSafetensors(path, { device, names });
  const tensors = {
    model: new Map<string, Tensor>(),
    optimizer: new Map<string, Tensor>(),
    ema: new Map<string, Tensor>(),
  };
  for (const name of names) {
    const part = PARTS.find((one) => name.startsWith(`${one}/`))!;
    tensors[part].set(name.slice(part.length + 1), loaded.tensors[name]!);
  }
  return { facts, tensors };
}
