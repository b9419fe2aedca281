#!/usr/bin/env node
// The package's operations under compute-sanitizer, with every tool, in pieces that run side by side.
//
//   node scripts/sanitize.mjs [--tools memcheck,racecheck,synccheck,initcheck] [--backends auto,cuda]
//                             [--ops blockSparseAttention,...] [--jobs 8] [--device cuda:0] [--out FILE]
//
// Runs the cases of `vsa check`, every one under every tool, with VSA_DEBUG_MEMORY=1, so that memory that was given
// back is seen; those of fine attention also on the portable kernels, which a Hopper GPU would not choose. One line a
// piece; exit code 1 if a tool reports anything or a case fails.
import { spawn } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const require = createRequire(import.meta.url);
/** @param {string} path @returns {unknown} */
const built = (path) => require(`../dist/${path}`);

const { values: options } = parseArgs({
  options: {
    tools: { type: 'string', default: 'memcheck,racecheck,synccheck,initcheck' },
    backends: { type: 'string', default: 'auto,cuda' },
    ops: { type: 'string' }, // all of them, unless given
    jobs: { type: 'string', default: '8' },
    device: { type: 'string', default: 'cuda:0' },
    out: { type: 'string' },
    piece: { type: 'string' }, // of a child: operation:part/parts:backend
  },
});

/** Parts of an operation's cases; racecheck takes longest for attention. @type {Record<string, number>} */
const PARTS = { blockSparseAttention: 4, denseAttention: 2, videoSparseAttention: 4 };

/** Operations whose kernels a backend chooses. */
const CHOOSES = new Set(['blockSparseAttention', 'denseAttention', 'videoSparseAttention']);

/** Runs a part of an operation's cases in this process. @param {string} piece */
async function runPiece(piece) {
  const { CHECK_CASES } = /** @type {typeof import('../lib/check/cases.js')} */ (built('check/cases.js'));
  const { CaseContext } = /** @type {typeof import('../lib/check/values.js')} */ (built('check/values.js'));
  const { device } = /** @type {typeof import('../lib/index.js')} */ (built('index.js'));
  const [op, part, parts, asked] = piece.split(/[:/]/);
  const backend = /** @type {import('../lib/check/values.js').CheckBackend} */ (asked);
  const cases = CHECK_CASES.filter((one) => one.op === op).filter((_, i) => i % Number(parts) === Number(part));
  const on = device(/** @type {import('../lib/index.js').DeviceString} */ (options.device));
  let [passed, failed] = [0, 0];
  for (const [i, one] of cases.entries()) {
    const context = new CaseContext(on, BigInt(i + 1) << 32n, backend);
    try {
      for (const row of await one.run(context)) {
        if (row.ok) passed += 1;
        else failed += 1;
      }
    } finally {
      context.dispose();
    }
  }
  console.log(`${on.name}: ${cases.length} cases, ${passed} results passed, ${failed} failed`);
  return failed === 0 && passed > 0 ? 0 : 1;
}

/** A piece under a tool, in a process of its own. @param {string} tool @param {string} piece @returns {Promise<boolean>} */
function sanitize(tool, piece) {
  const started = performance.now();
  const self = fileURLToPath(import.meta.url);
  const args = ['--tool', tool, '--error-exitcode', '9', process.execPath, self, '--piece', piece];
  const child = spawn('compute-sanitizer', [...args, '--device', options.device], {
    env: { ...process.env, VSA_DEBUG_MEMORY: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (part) => (text += String(part)));
  return new Promise((resolve) => {
    child.on('error', (error) => (text += `${error.message}\n`));
    child.on('close', (code) => {
      const lines = text.split('\n');
      const said = lines.filter((line) => /SUMMARY|results passed/.test(line)).map((line) => line.replace(/^=+ /, ''));
      const seconds = ((performance.now() - started) / 1000).toFixed(0);
      const report = [`${code === 0 ? 'clean' : 'FOUND'} ${tool} ${piece}, ${seconds} s: ${said.join(' | ')}`];
      if (code !== 0) report.push(...lines.slice(0, 60));
      console.log(report.join('\n'));
      if (options.out !== undefined) appendFileSync(options.out, `${report.join('\n')}\n`);
      resolve(code === 0);
    });
  });
}

async function runAll() {
  const { CHECKED_OPS } = /** @type {typeof import('../lib/check/index.js')} */ (built('check/cases.js'));
  const ops = options.ops?.split(',') ?? CHECKED_OPS;
  const unknown = ops.filter((op) => !CHECKED_OPS.includes(op));
  if (unknown.length > 0) throw new Error(`--ops: ${unknown.join(', ')}: not of ${CHECKED_OPS.join(', ')}`);
  const backends = options.backends.split(',');
  const strange = backends.filter((backend) => backend !== 'auto' && backend !== 'cuda');
  if (strange.length > 0) throw new Error(`--backends: ${strange.join(', ')}: wanted auto, cuda or both`);
  const pieces = ops.flatMap((op) =>
    backends
      .filter((backend) => backend === 'auto' || CHOOSES.has(op))
      .flatMap((backend) =>
        Array.from({ length: PARTS[op] ?? 1 }, (_, part) => `${op}:${part}/${PARTS[op] ?? 1}:${backend}`),
      ),
  );
  if (pieces.length === 0) throw new Error('--backends cuda: none of --ops has kernels to choose from');
  // The longest first.
  const all = options.tools.split(',').flatMap((tool) => pieces.map((piece) => /** @type {const} */ ([tool, piece])));
  const weight = (/** @type {readonly [string, string]} */ [tool, piece]) =>
    (tool === 'racecheck' ? 2 : 1) * (/Attention/.test(piece) ? 2 : 1);
  const waiting = all.sort((a, b) => weight(b) - weight(a));
  let found = 0;
  const worker = async () => {
    for (let one = waiting.shift(); one !== undefined; one = waiting.shift()) {
      if (!(await sanitize(...one))) found += 1;
    }
  };
  const count = all.length;
  await Promise.all(Array.from({ length: Number(options.jobs) }, worker));
  console.log(`${count - found} clean, ${found} not`);
  return found === 0 ? 0 : 1;
}

process.exitCode = options.piece === undefined ? await runAll() : await runPiece(options.piece);
