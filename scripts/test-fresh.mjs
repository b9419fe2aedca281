#!/usr/bin/env node
// What a stranger does first, on a machine without CUDA: clone, npm ci, npm run demo, a few tests; then the package
// as npm would publish it: what is in it, with and without its binary, on every supported Node, in worker threads.
//
//   npm run test:fresh [-- --json FILE] [-- --keep]    counts as JSON; keep the temporary folder
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { freshEnvironment, withoutCuda } from './fresh/environment.mjs';
import { expectText, Skip, Steps } from './fresh/steps.mjs';

const NAME = 'video-sparse-attention';
const NODES = [20, 22, 24];
// Quick tests of every layer; npm test runs them all.
const SMOKE = ['attention/vsa', 'attention/lists', 'tensor/create', 'files/npy', 'oracle/grid', 'cli/cli'].map(
  (name) => `test/${name}.test.ts`,
);
// All that the package may hold, and each of them must be there.
const PACKED = [
  /^(package\.json|README\.md|LICENSE|CHANGELOG\.md)$/,
  /^(CMakeLists\.txt|binding\.gyp|scripts\/build-native\.mjs)$/,
  /^csrc\/.+\.(h|cpp|cu|cuh|cmake)$/,
  /^dist\/.+\.(js|d\.ts)$/,
  /^prebuilds\/linux-\w+\/[^/]+\.node$/,
];

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values: options } = parseArgs({ options: { json: { type: 'string' }, keep: { type: 'boolean' } } });
const folder = mkdtempSync(join(tmpdir(), 'vsa-fresh-'));
const clone = join(folder, 'clone');
const steps = new Steps(folder);
const env = freshEnvironment(root);
const noCuda = withoutCuda(env, join(folder, 'path'));

/**
 * @param {string} text
 * @returns {unknown}
 */
const parse = (text) => JSON.parse(text);

/**
 * Packs the clone. Returns the tarball's path and the names of the files in it.
 * @param {string} name of the tarball
 */
function pack(name) {
  const target = join(folder, name);
  mkdirSync(target);
  steps.run(clone, noCuda, 'npm', 'pack', '--pack-destination', target);
  const tarball = steps.run(target, env, 'ls').trim();
  const names = steps.run(target, env, 'tar', 'tzf', tarball).trim().split('\n');
  return { path: join(target, tarball), names: names.map((one) => one.replace(/^package\//, '')) };
}

/**
 * Makes an empty folder with the test's programs in it and installs a tarball there.
 * @param {string} name of the folder
 * @param {string} tarball
 * @param {NodeJS.ProcessEnv} environment
 * @param {string[]} flags of npm install
 */
function consume(name, tarball, environment, ...flags) {
  const target = join(folder, name);
  mkdirSync(target);
  // npm 12 runs no dependency's install script unless the project names it.
  writeFileSync(
    join(target, 'package.json'),
    JSON.stringify({ private: true, allowScripts: { [`file:${tarball}`]: true } }),
  );
  for (const file of ['exercise.cjs', 'consumer.cjs', 'consumer.mjs', 'types.mts']) {
    copyFileSync(join(clone, 'test', 'fresh', file), join(target, file));
  }
  return { target, output: steps.run(target, environment, 'npm', 'install', '--omit=dev', ...flags, tarball) };
}

/**
 * Runs the test's programs there. All must compute the same.
 * @param {string} target
 * @param {string} node
 * @param {NodeJS.ProcessEnv} environment
 */
function exercise(target, node, environment) {
  const required = steps.run(target, environment, node, 'consumer.cjs').trim();
  const imported = steps.run(target, environment, node, 'consumer.mjs').trim();
  if (required !== imported) throw new Error(`require gives ${required}, import gives ${imported}`);
  return required;
}

/** @param {number} bytes */
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

const head = steps.run(root, env, 'git', 'rev-parse', '--short=12', 'HEAD').trim();
const changes = steps.run(root, env, 'git', 'status', '--porcelain').split('\n').filter(Boolean).length;
if (changes > 0) {
  console.log(`note: ${changes} files have uncommitted changes, and the clone holds HEAD (${head}) only`);
}

steps.step('git clone', [], () => {
  steps.run(folder, env, 'git', 'clone', '--quiet', '--no-hardlinks', root, clone);
  return head;
});
steps.step('npm ci, without nvcc', ['git clone'], () => {
  expectText(steps.run(clone, noCuda, 'npm', 'ci'), 'CPU-only addon is built');
  const info = steps.run(clone, noCuda, process.execPath, '-p', 'require("./build/Release/vsa.node").build().commit');
  if (info.trim() !== head) throw new Error(`the addon says it was built from ${info.trim()}, not ${head}`);
  return 'CPU-only addon';
});
// The demo that a stranger runs, shorter: by itself it trains for two minutes.
steps.step('npm run demo', ['npm ci, without nvcc'], () => {
  steps.run(clone, noCuda, 'npm', 'run', 'demo', '--', '--minutes', '0.3');
  const report = join(clone, 'vsa-demo.html');
  if (!existsSync(report)) throw new Error('no vsa-demo.html was written');
  return `report of ${megabytes(statSync(report).size)}`;
});
steps.step('smoke tests', ['npm ci, without nvcc'], () => {
  const output = steps.run(clone, noCuda, 'npm', 'test', '--', '--ci', '--runTestsByPath', ...SMOKE);
  const [tests] = /^Tests:.*$/m.exec(output) ?? [];
  if (tests === undefined || /failed|skipped/.test(tests)) throw new Error(`not all passed: ${String(tests)}`);
  return tests.replace(/\s+/g, ' ');
});
steps.step('nothing left lying about', ['npm run demo', 'smoke tests'], () => {
  const left = steps.run(clone, env, 'git', 'status', '--porcelain').trim();
  if (left !== '') throw new Error(`git status in the clone says\n${left}`);
  return undefined;
});

let tarball = '';
steps.step('npm run prebuild and npm pack', ['npm ci, without nvcc'], () => {
  rmSync(join(clone, 'dist'), { recursive: true, force: true }); // npm pack must make it
  steps.run(clone, noCuda, 'npm', 'run', 'prebuild');
  const { path, names } = pack('with-prebuild');
  for (const name of names) {
    if (!PACKED.some((allowed) => allowed.test(name))) throw new Error(`the package must not hold ${name}`);
  }
  const tracked = steps
    .run(clone, env, 'git', 'ls-files', 'csrc', ':!*.md', 'scripts/build-native.mjs')
    .trim()
    .split('\n');
  const wanted = [...tracked, 'README.md', 'LICENSE', 'CHANGELOG.md', 'CMakeLists.txt', 'binding.gyp', 'dist/index.js'];
  for (const name of wanted) {
    if (!names.includes(name)) throw new Error(`the package lacks ${name}`);
  }
  const binaries = names.filter((name) => name.endsWith('.node'));
  if (binaries.length !== 1) throw new Error(`the package holds ${binaries.length} binaries: ${binaries.join(', ')}`);
  tarball = path;
  return `${names.length} files, ${megabytes(statSync(path).size)}`;
});

let consumer = '';
let digest = '';
const shipped = 'install without scripts, require and import';
steps.step(shipped, ['npm run prebuild and npm pack'], () => {
  consumer = consume('consumer', tarball, env, '--ignore-scripts').target;
  digest = exercise(consumer, process.execPath, { ...env, PREBUILDS_ONLY: '1' });
  const size = steps.run(consumer, env, 'du', '--summarize', '--bytes', 'node_modules').split('\t')[0];
  return `node_modules of ${megabytes(Number(size))}, Node ${process.versions.node}`;
});
steps.step('vsa info from the package', [shipped], () => {
  const vsa = join(consumer, 'node_modules', '.bin', 'vsa');
  const info = /** @type {{ package: string, addon: { commit: string } }} */ (
    parse(steps.run(consumer, { ...env, PREBUILDS_ONLY: '1' }, vsa, 'info', '--json'))
  );
  if (info.addon.commit !== head) throw new Error(`the shipped addon was built from ${info.addon.commit}, not ${head}`);
  return `${NAME} ${info.package}`;
});
steps.step('TypeScript sees the types', [shipped], () => {
  const tsc = join(clone, 'node_modules', 'typescript', 'bin', 'tsc');
  const types = ['--types', 'node', '--typeRoots', join(clone, 'node_modules', '@types')];
  const flags = ['--noEmit', '--strict', '--exactOptionalPropertyTypes', '--module', 'nodenext', '--target', 'es2022'];
  const lib = ['--lib', 'es2023,esnext.disposable'];
  steps.run(consumer, env, process.execPath, tsc, ...flags, ...lib, ...types, 'types.mts');
  return undefined;
});

for (const major of NODES.filter((one) => one !== Number(process.versions.node.split('.')[0]))) {
  steps.step(`Node ${major}: require, import, worker threads`, [shipped], () => {
    const target = join(folder, `node-${major}`);
    const name = `node-${process.platform}-${process.arch}`;
    mkdirSync(target);
    writeFileSync(join(target, 'package.json'), '{ "private": true }\n');
    try {
      steps.run(target, env, 'npm', 'install', '--ignore-scripts', '--no-save', `${name}@${major}`);
    } catch (error) {
      throw new Skip(`npm has no ${name}@${major} here: ${String(error).split('\n').slice(0, 3).join(' ')}`);
    }
    const node = join(target, 'node_modules', name, 'bin', 'node');
    const version = steps.run(target, env, node, '--version').trim();
    if (!version.startsWith(`v${major}.`)) throw new Error(`asked for Node ${major}, got ${version}`);
    const other = exercise(consumer, node, { ...env, PREBUILDS_ONLY: '1' });
    if (other !== digest)
      throw new Error(`the results differ from Node ${process.versions.node}'s: ${other}, ${digest}`);
    return version;
  });
}

steps.step('install from source, without a shipped binary', ['npm run prebuild and npm pack'], () => {
  rmSync(join(clone, 'prebuilds'), { recursive: true });
  const { path, names } = pack('without-prebuild');
  if (names.some((name) => name.endsWith('.node'))) throw new Error('the package still holds a binary');
  const { target, output } = consume('from-source', path, { ...env, VSA_CUDA: 'OFF' }, '--foreground-scripts');
  expectText(output, 'CPU-only addon is built (VSA_CUDA=OFF)');
  exercise(target, process.execPath, env);
  return undefined;
});

if (options.keep) console.log(`kept: ${folder}`);
else rmSync(folder, { recursive: true, force: true });
const [passed, failed, skipped] = [steps.count('ok'), steps.count('FAILED'), steps.count('skipped')];
if (options.json !== undefined) writeFileSync(options.json, JSON.stringify({ passed, failed, skipped }));
console.log(`test:fresh: ${passed} ok, ${failed} failed, ${skipped} skipped`);
process.exit(failed > 0 ? 1 : 0);
