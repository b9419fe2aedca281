/** How commands report failures, and that `vsa check` exits with 1 when a row does not hold. */

import { CheckReport } from '../../lib/check/report.js';
import { runCheck } from '../../lib/check/index.js';
import { runCheckCommand } from '../../lib/cli/check.js';
import { reportError } from '../../lib/cli/report.js';
import { VsaError, VsaRangeError } from '../../lib/errors.js';

jest.mock('../../lib/check/index.js', () => ({
  ...jest.requireActual<object>('../../lib/check/index.js'),
  runCheck: jest.fn(),
}));

let stdout = '';
let stderr = '';
beforeEach(() => {
  stdout = stderr = '';
  jest.spyOn(process.stdout, 'write').mockImplementation((text) => ((stdout += String(text)), true));
  jest.spyOn(process.stderr, 'write').mockImplementation((text) => ((stderr += String(text)), true));
});
afterEach(() => jest.restoreAllMocks());

test('our errors are a sentence with a code; values that no call takes are usage', () => {
  expect(reportError(new VsaError({ code: 'ERR_FILE', message: 'no such file' }), false)).toBe(1);
  expect(stderr).toBe('vsa: no such file [ERR_FILE]\n');
  expect(reportError(new VsaRangeError({ code: 'ERR_GRID', argument: 'grid', got: '0', wanted: '1' }), true)).toBe(2);
  expect(JSON.parse(stdout)).toEqual({ error: { code: 'ERR_GRID', message: 'grid: got 0, wanted 1' } });
});

test('other errors show their stack: they are ours to mend', () => {
  expect(reportError(new Error('what'), false)).toBe(1);
  expect(stderr).toMatch(/^vsa: what\nError: what\n {4}at /);
  expect(reportError('a string', true)).toBe(1);
});

test.each([
  [true, 0],
  [false, 1],
])('vsa check: all rows hold: %s, exit %d', async (ok, code) => {
  const row = { op: 'tile', case: 'a case', tensor: 'output', maxError: 1, limit: 2, relativeL2: 0, limitL2: 1, ok };
  const worst = { coordinates: [0, 3], got: 1, want: 2 };
  const report = new CheckReport('cpu', 'a processor', 1, 0.1, [{ ...row, worst }]);
  jest.mocked(runCheck).mockResolvedValue(report);
  expect(await runCheckCommand({ device: 'cpu', seed: 1, backend: 'auto', json: false })).toBe(code);
  expect(stdout).toContain(ok ? '1 passed, 0 failed' : '0 passed, 1 failed');
  expect(stdout).toContain('[0, 3] got 1, want 2');
});
