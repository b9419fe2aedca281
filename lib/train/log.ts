/** The log of a run: one line of JSON a step. */

import { type FileHandle, open, readFile, truncate } from 'node:fs/promises';
import { VsaError } from '../errors.js';

export interface LogRow {
  /** From 1: the number of steps taken after it. */
  readonly step: number;
  readonly loss: number;
  /** Norm of the gradient before it is clipped. */
  readonly gradientNorm: number;
  readonly learningRate: number;
  /** Tiles that every query tile keeps; null for full attention. */
  readonly topK: number | null;
  /** Milliseconds from the step before. */
  readonly ms: number;
  readonly tokensPerSecond: number;
  /** Useful TFLOP/s: six a weight and token, and attention's. */
  readonly tflops: number;
  /** Share of the device's peak; null where none is known. */
  readonly mfu: number | null;
  /** FLOP of the run so far. */
  readonly flop: number;
  /** The most bytes of the device that the process had in use at once, as of a second ago or less. */
  readonly memory: number;
  readonly date: string;
}

/** The rows of a log; a last line that a crash cut short is left out. */
export function parseLog(text: string): LogRow[] {
  const rows: LogRow[] = [];
  for (const line of text.split('\n')) {
    try {
      const row = JSON.parse(line) as Partial<LogRow> | null;
      if (typeof row?.step === 'number' && typeof row.loss === 'number') rows.push(row as LogRow);
    } catch {
      // What is no row is skipped: the end of an interrupted write.
    }
  }
  return rows;
}

export async function readLog(path: string): Promise<LogRow[]> {
  return parseLog(await readFile(path, 'utf8'));
}

/** Appends to a run's log. */
export class LogWriter {
  private constructor(
    private readonly handle: FileHandle,
    /** FLOP of the steps that are kept. */
    readonly flop: number,
  ) {}

  /**
   * Opens a log and cuts off every row after `step`: a resumed run takes those steps again.
   *
   * @throws VsaError ERR_FILE.
   */
  static async open(path: string, step: number): Promise<LogWriter> {
    try {
      const handle = await open(path, 'a+');
      try {
        const text = await handle.readFile('utf8');
        let bytes = 0;
        let flop = 0;
        for (const line of text.split('\n').slice(0, -1)) {
          const row = parseLog(line)[0];
          if (row === undefined || row.step > step) break;
          bytes += Buffer.byteLength(line) + 1;
          flop = row.flop;
        }
        await truncate(path, bytes);
        return new LogWriter(handle, flop);
      } catch (error) {
        await handle.close();
        throw error;
      }
    } catch (cause) {
      const wanted = 'a file that can be written';
      throw new VsaError({ code: 'ERR_FILE', argument: path, got: (cause as Error).message, wanted, cause });
    }
  }

  async write(row: LogRow): Promise<void> {
    await this.handle.appendFile(`${JSON.stringify(row)}\n`);
  }

  async close(): Promise<void> {
    await this.handle.close();
  }
}
