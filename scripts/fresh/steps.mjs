// Runs the steps of a test that is made of commands, and says of each: ok, FAILED or skipped.
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Thrown by a step for something that this machine can't do. */
export class Skip extends Error {}

export class Steps {
  /** @type {{ name: string, outcome: 'ok' | 'FAILED' | 'skipped' }[]} */
  results = [];
  #logs;

  /** @param {string} logs the folder for the output of commands */
  constructor(logs) {
    this.#logs = logs;
  }

  /** @param {'ok' | 'FAILED' | 'skipped'} outcome */
  count(outcome) {
    return this.results.filter((result) => result.outcome === outcome).length;
  }

  /**
   * Runs one step, unless a step that it builds on did not succeed.
   * @param {string} name
   * @param {string[]} needs names of earlier steps
   * @param {() => string | undefined} body throws if the step fails; returns a remark
   */
  step(name, needs, body) {
    const start = performance.now();
    /** @type {'ok' | 'FAILED' | 'skipped'} */
    let outcome = 'ok';
    let remark;
    const missing = needs.find((need) => !this.results.some((one) => one.name === need && one.outcome === 'ok'));
    if (missing !== undefined) {
      outcome = 'skipped';
      remark = `"${missing}" did not succeed`;
    } else {
      try {
        remark = body() ?? '';
      } catch (error) {
        outcome = error instanceof Skip ? 'skipped' : 'FAILED';
        remark = error instanceof Error ? error.message : String(error);
      }
    }
    this.results.push({ name, outcome });
    const seconds = ((performance.now() - start) / 1000).toFixed(0);
    console.log(`${outcome.padEnd(8)}${name} (${seconds} s)${remark === '' ? '' : `: ${remark}`}`);
  }

  /**
   * Runs a command without input and returns what it printed on both streams. Throws, with the end of it, if it fails.
   * @param {string} cwd
   * @param {NodeJS.ProcessEnv} env
   * @param {string} program
   * @param {string[]} args
   */
  run(cwd, env, program, ...args) {
    const file = join(this.#logs, 'command.log');
    const log = openSync(file, 'w');
    const { status, signal, error } = spawnSync(program, args, {
      cwd,
      env,
      stdio: ['ignore', log, log],
      timeout: 600_000,
      killSignal: 'SIGKILL',
    });
    closeSync(log);
    const output = readFileSync(file, 'utf8');
    if (status !== 0) {
      const end = output.trimEnd().split('\n').slice(-40).join('\n');
      const why = error?.message ?? (signal === null ? `exit code ${status}` : `ended by ${signal}`);
      throw new Error(`${[program, ...args].join(' ')}: ${why}\n${end}`);
    }
    return output;
  }
}

/**
 * Throws unless the text has the words.
 * @param {string} text
 * @param {string} words
 */
export function expectText(text, words) {
  if (!text.includes(words))
    throw new Error(`the output lacks "${words}":\n${text.trimEnd().split('\n').slice(-20).join('\n')}`);
}
