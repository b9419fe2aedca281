/** The end of a process: it waits for promises, for nothing else, and never ends in a crash. */

import { program, runNode } from './node.js';

/** Queues some seconds of attention; nobody is to wait for it. */
const LONG = `
  const q = vsa.Tensor.randn([1, 2048, 8, 64]);
  for (let i = 0; i < 60; i++) vsa.denseAttention.forward({ q, k: q, v: q });`;

test('a pending read keeps the process alive until it resolves, and then no longer', async () => {
  const outcome = await runNode(
    program(`
      process.on('exit', () => report(['exit', Date.now() - resolved < 2000]));
      let resolved = 0;
      const x = vsa.Tensor.randn([1, 1024, 4, 64]);
      vsa.denseAttention.forward({ q: x, k: x, v: x }).output.data().then((data) => {
        resolved = Date.now();
        report(['read', data.length]);
      });
      report(['called']);`),
  );
  expect(outcome).toEqual({
    ...{ code: 0, signal: null, stderr: '' },
    stdout: '["called"]\n["read",262144]\n["exit",true]\n',
  });
});

test('so does synchronize', async () => {
  const outcome = await runNode(
    program(`vsa.Tensor.randn([1 << 20]); vsa.device().synchronize().then(() => report('done'));`),
  );
  expect(outcome).toMatchObject({ code: 0, signal: null, stderr: '', stdout: '"done"\n' });
});

describe.each([
  ['by itself', ''],
  ['by process.exit()', 'process.exit(0);'],
])('the process ends %s', (_, end) => {
  const ended = async (body: string) => {
    const outcome = await runNode(program(`process.on('exit', () => report(Date.now())); ${body} ${end}`));
    const now = Date.now();
    expect(outcome).toMatchObject({ code: 0, signal: null, stderr: '' });
    return now - Number(outcome.stdout);
  };

  test('at once when nothing is pending', async () => {
    expect(await ended('await vsa.Tensor.randn([1000]).data();')).toBeLessThan(3000);
  });

  test('without waiting for operations that nobody reads', async () => {
    expect(await ended(LONG)).toBeLessThan(3000);
  });

  test('with tensors that were never disposed, of which some are in use', async () => {
    const body = `
      const grid = new vsa.TileGrid({ tokens: [4, 8, 8] });
      globalThis.held = Array.from({ length: 50 }, (_, seed) => {
        const q = vsa.Tensor.randn([1, grid.length, 2, 64], { seed });
        return vsa.videoSparseAttention.forward({ q, k: q, v: q, grid, topK: 2, coarse: 'add' });
      });`;
    expect(await ended(body)).toBeLessThan(3000);
  });
});

test.each([0, 3, 10])('process.exit() with reads pending, %d ms after their call', async (delay) => {
  const outcome = await runNode(
    program(`
      ${LONG}
      const x = vsa.Tensor.randn([1 << 20]);
      for (let i = 0; i < 8; i++) { x.data(); x.clone().data(); vsa.device().synchronize(); }
      setTimeout(() => process.exit(5), ${delay});`),
  );
  expect(outcome).toMatchObject({ code: 5, signal: null, stderr: '' });
});

test('a read that is rejected and not caught ends the process as any rejection does', async () => {
  const outcome = await runNode(
    program(`
      const x = vsa.Tensor.zeros([3]);
      x.dispose();
      x.data();`),
  );
  expect(outcome).toMatchObject({ code: 1, signal: null });
  expect(outcome.stderr).toContain('this: got a disposed tensor, wanted a living one');
});

test('an uncaught error in the middle of queued work', async () => {
  const outcome = await runNode(program(`${LONG} q.reshape([7]);`));
  expect(outcome).toMatchObject({ code: 1, signal: null });
  expect(outcome.stderr).toContain('VsaRangeError: shape: got [7], wanted 1048576 elements');
});
