#!/usr/bin/env node
// Compiles build/Release/vsa.node: cmake-js finds Node-API's headers, CMake does the rest.
//
//   node scripts/build-native.mjs [--if-needed]     if needed: unless a compiled or shipped addon loads
//
// Environment: VSA_CUDA=AUTO|ON|OFF, VSA_CUDA_ARCHITECTURES=80;90a, CMAKE_BUILD_PARALLEL_LEVEL, and what CMake
// itself reads (CXX, CXXFLAGS, CUDACXX, ...).
//
// Why not "cmake-js compile": it configures only once, so that a changed environment or a new commit would go
// unnoticed, it compiles on one core, and it answers every compile error with a second build from scratch.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const work = join(root, 'build', 'cmake');
const target = join(root, 'build', 'Release', 'vsa.node');

/**
 * The path of a program, or undefined.
 * @param {string} name
 */
function onPath(name) {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      if (statSync(path).isFile()) return path;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

/**
 * @param {string} sentence
 * @returns {never}
 */
function fail(sentence) {
  console.error(`video-sparse-attention: ${sentence}`);
  process.exit(1);
}

const require = createRequire(import.meta.url);
if (process.argv.includes('--if-needed')) {
  /** @type {unknown} The package has no types. */
  const load = require('node-gyp-build');
  try {
    /** @type {(folder: string) => unknown} */ (load)(root);
    process.exit(0);
  } catch (error) {
    const [reason] = String(error instanceof Error ? error.message : error).split('\n');
    console.log(`video-sparse-attention: compiling the addon, since none loads here (${reason})`);
    rmSync(target, { force: true }); // CMake would take it for finished
  }
}

const apt = 'on Debian and Ubuntu: apt-get install cmake g++ make';
if (!onPath('cmake')) fail(`CMake (3.22 or newer) is needed to compile the addon and was not found; ${apt}`);
if (!process.env['CXX'] && !onPath('c++') && !onPath('g++'))
  fail(`a C++20 compiler is needed to compile the addon; ${apt}`);
if (!onPath('make') && !onPath('ninja')) fail(`make or ninja is needed to compile the addon; ${apt}`);

// CMake keeps the compilers it found first. When what it would find has changed, its cache is of no use.
const read = ['VSA_CUDA', 'VSA_CUDA_ARCHITECTURES', 'CUDACXX', 'CUDA_PATH', 'CUDAHOSTCXX', 'CUDAFLAGS'];
read.push('CC', 'CXX', 'CFLAGS', 'CXXFLAGS', 'LDFLAGS', 'CMAKE_GENERATOR', 'CMAKE_TOOLCHAIN_FILE');
const settings = JSON.stringify({
  root,
  ...Object.fromEntries(read.map((name) => [name, process.env[name] ?? ''])),
  ...Object.fromEntries(['cmake', 'ninja', 'make', 'c++', 'g++', 'nvcc'].map((name) => [name, onPath(name) ?? ''])),
});
const settingsFile = join(work, 'settings.json');
if (existsSync(work) && !(existsSync(settingsFile) && readFileSync(settingsFile, 'utf8') === settings)) {
  console.log('video-sparse-attention: other settings than at the last build, compiling everything');
  rmSync(work, { recursive: true });
}
mkdirSync(work, { recursive: true });
writeFileSync(settingsFile, settings);

const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js');
const common = ['--directory', root, '--out', work, '--config', 'Release', '--log-level', 'warn'];
const jobs = process.env['CMAKE_BUILD_PARALLEL_LEVEL'] || String(availableParallelism());
// Under node-gyp, make has left its job server's settings here, which are not for another make.
const env = { ...process.env, MAKEFLAGS: '', MAKELEVEL: '' };
/**
 * @param {string[]} args of cmake-js
 * @param {string} done what it does, in the past tense
 */
function run(args, done) {
  const { status, error } = spawnSync(process.execPath, [cmakeJs, ...args, ...common], { env, stdio: 'inherit' });
  if (error) fail(`cmake-js could not be started: ${error.message}`);
  if (status !== 0) fail(`the addon could not be ${done}: see above`);
}
run(['configure'], 'configured');
run(['build', '--parallel', jobs], 'compiled');
console.log(`video-sparse-attention: built ${target}`);
