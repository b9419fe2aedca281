/** The self-check: what a device computes against a float64 oracle. */
export { CHECKED_OPS } from './cases.js';
export { formatCheck, type FormatOptions } from './format.js';
export { CheckReport, type CheckRow, type Worst } from './report.js';
export { type CheckOptions, type CheckProgress, runCheck } from './run.js';
export type { CheckBackend } from './values.js';
