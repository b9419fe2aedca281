/** What one run needs to become as good as another one. */

import { dirname, normalize } from 'node:path';
import { times } from '../../report/html.js';
import type { LogRow } from '../log.js';
import { short } from './charts.js';
import { finalLoss, lossWindow, type RunReport } from './data.js';

/** Where a run is after a step, and what it took to get there. */
export interface Reach {
  step: number;
  flop: number;
  seconds: number;
}

/** All of a run. */
export function wholeRun(rows: readonly LogRow[]): Reach {
  const last = rows.at(-1);
  const seconds = rows.reduce((sum, { ms }) => sum + ms, 0) / 1000;
  return { step: last?.step ?? 0, flop: last?.flop ?? 0, seconds };
}

/**
 * The first step at which the mean loss of the `window` steps up to it is at most `loss`; undefined where it never is.
 * The window is whole: a step's own loss depends on the times it drew.
 */
export function firstAsGood(rows: readonly LogRow[], loss: number, window: number): Reach | undefined {
  let sum = 0;
  for (let at = 0; at < rows.length; at++) {
    sum += rows[at]!.loss - (rows[at - window]?.loss ?? 0);
    if (at + 1 >= window && sum / window <= loss) return wholeRun(rows.slice(0, at + 1));
  }
  return undefined;
}

type Compared = Pick<RunReport, 'name' | 'rows' | 'settings'>;

/** In a sentence for every run beside the first of full attention, which the others are compared with. */
export function comparisonText(runs: readonly Compared[]): string {
  const full = runs.find(({ settings }) => settings.attention === 'full');
  if (full === undefined || full.rows.length === 0 || runs.length < 2) return '';
  const wanted = finalLoss(full.rows);
  const window = lossWindow(full.rows.length);
  const whole = wholeRun(full.rows);
  const share = (flop: number) => times(flop / whole.flop, 2);
  const sentences = runs.flatMap((run) => {
    const { name, rows, settings } = run;
    if (run === full || rows.length === 0) return [];
    const { flop } = wholeRun(rows);
    if (settings.adapt !== null) {
      const own = `${name} goes on from trained weights, with ${short(flop)}FLOP (${share(flop)})`;
      if (normalize(dirname(settings.adapt)) !== normalize(full.name)) return [`${own}.`];
      return [`${own}, which makes ${share(flop + whole.flop)} with those that its dense weights took.`];
    }
    const reach = firstAsGood(rows, wanted, window);
    if (reach === undefined) {
      const ends = `${name} does not get there: it ends at ${finalLoss(rows).toFixed(4)} with ${short(flop)}FLOP (${share(flop)})`;
      const before = firstAsGood(full.rows, finalLoss(rows), window);
      if (before === undefined) return [`${ends}.`];
      const many = times(before.flop / flop, 2);
      return [
        `${ends}; ${full.name} is first as good at step ${String(before.step)}, with ${short(before.flop)}FLOP, ${many} as many.`,
      ];
    }
    return [
      `${name} first gets there at step ${String(reach.step)}, with ${short(reach.flop)}FLOP (${share(reach.flop)}).`,
    ];
  });
  const reference = `${full.name} ends at a loss of ${wanted.toFixed(4)}, the mean of ${String(window)} steps, with ${short(whole.flop)}FLOP.`;
  return [reference, ...sentences].join(' ');
}
