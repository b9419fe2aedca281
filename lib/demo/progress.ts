/** Progress of a long command: a bar on a terminal, plain lines in a log. */
import { SingleBar } from 'cli-progress';

/** Where a command writes. */
export interface DemoIo {
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream;
  /** Whether `stderr` is a terminal that a bar can be drawn on. */
  readonly isTTY: boolean;
}

/** Stages one after the other, each with its share of the whole; shares are estimates and sum to 1. */
export interface Progress {
  /** Begins a stage; the one before is over. */
  stage(name: string, share: number): void;
  /** Adds to the running stage, in parts of it: 1 is all of it. */
  advance(part: number): void;
  /** Leaves the terminal clean. `completed`, the default: the running stage has reached its end. May be called again. */
  end(completed?: boolean): void;
}

/** Seconds between two lines of the same stage. */
const LINE_INTERVAL = 15;
const STEPS = 1000;

export function createProgress(io: DemoIo): Progress {
  return io.isTTY ? new Bar(io.stderr) : new Lines(io.stderr);
}

class Bar implements Progress {
  readonly #bar: SingleBar;
  #done = 0; // shares of finished stages
  #share = 0; // of the running one
  #part = 0;

  constructor(stream: NodeJS.WritableStream) {
    this.#bar = new SingleBar({
      stream,
      format: ' {bar} {percentage}%  {stage}  {duration_formatted}',
      barCompleteChar: '█',
      barIncompleteChar: '░',
      barsize: 28,
      clearOnComplete: true,
      stopOnComplete: false,
      gracefulExit: false, // the process ends on Ctrl-C as any other does
      linewrap: true,
    });
    this.#bar.start(STEPS, 0, { stage: '' });
  }

  stage(name: string, share: number): void {
    this.#done += this.#share;
    this.#share = share;
    this.#part = 0;
    this.#bar.update(this.#position(), { stage: name });
  }

  advance(part: number): void {
    this.#part = Math.min(1, this.#part + part);
    this.#bar.update(this.#position());
  }

  end(): void {
    this.#bar.stop();
  }

  #position(): number {
    return Math.min(STEPS, Math.round((this.#done + this.#share * this.#part) * STEPS));
  }
}

class Lines implements Progress {
  #name: string | undefined;
  #part = 0;
  #started = 0;
  #lastLine = 0;

  constructor(private readonly stream: NodeJS.WritableStream) {}

  stage(name: string): void {
    this.#finish();
    this.#name = name;
    this.#part = 0;
    this.#started = performance.now();
    this.#lastLine = this.#started;
  }

  advance(part: number): void {
    this.#part = Math.min(1, this.#part + part);
    const now = performance.now();
    if (now - this.#lastLine < LINE_INTERVAL * 1000) return;
    this.#lastLine = now;
    this.stream.write(`${this.#name}: ${Math.floor(this.#part * 100)} %\n`);
  }

  end(completed = true): void {
    if (completed) this.#finish();
    this.#name = undefined;
  }

  #finish(): void {
    if (this.#name === undefined) return;
    this.stream.write(`${this.#name}: ${((performance.now() - this.#started) / 1000).toFixed(1)} s\n`);
  }
}
