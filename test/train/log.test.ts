import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type LogRow, LogWriter, parseLog, readLog } from '../../lib/train/log.js';

const folder = mkdtempSync(join(tmpdir(), 'vsa-log-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const row = (step: number): LogRow => ({
  ...{ step, loss: 1 / step, gradientNorm: 1, learningRate: 1e-3, topK: 4, ms: 10, tokensPerSecond: 100 },
  ...{ tflops: 0.1, mfu: null, flop: 100 * step, memory: 1, date: '2026-01-01T00:00:00.000Z' },
});

test('rows come back as they were written', async () => {
  const path = join(folder, 'plain.jsonl');
  const log = await LogWriter.open(path, 0);
  for (const step of [1, 2, 3]) await log.write(row(step));
  await log.close();
  expect(await readLog(path)).toEqual([row(1), row(2), row(3)]);
});

test('a resumed run cuts off what came after its checkpoint, and a line that a crash cut short', async () => {
  const path = join(folder, 'resumed.jsonl');
  writeFileSync(path, `${[1, 2, 3, 4].map((step) => JSON.stringify(row(step))).join('\n')}\n{"step":5,"lo`);
  const log = await LogWriter.open(path, 2);
  expect(log.flop).toBe(200);
  await log.write(row(3));
  await log.close();
  expect(readFileSync(path, 'utf8')).toBe(`${[1, 2, 3].map((step) => JSON.stringify(row(step))).join('\n')}\n`);
});

test('a torn last row is left out', () => {
  expect(parseLog(`${JSON.stringify(row(1))}\n{"step":2`)).toEqual([row(1)]);
  expect(parseLog('\n\nnull\n[]\n"text"\n')).toEqual([]);
});

test('a log that cannot be written is a typed error', async () => {
  const failure = LogWriter.open(join(folder, 'missing', 'log.jsonl'), 0);
  await expect(failure).rejects.toMatchObject({ code: 'ERR_FILE', argument: join(folder, 'missing', 'log.jsonl') });
});
