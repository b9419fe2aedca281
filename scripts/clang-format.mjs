#!/usr/bin/env node
// Formats the C++ and CUDA sources (.clang-format) with the clang-format that npm installs, so that every machine
// agrees, or says which files it would change.
//
//   node scripts/clang-format.mjs --write | --check
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const [mode, ...more] = process.argv.slice(2);
if ((mode !== '--write' && mode !== '--check') || more.length > 0) {
  console.error('usage: node scripts/clang-format.mjs --write | --check');
  process.exit(2);
}

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const files = ['csrc', 'bench']
  .flatMap((folder) => readdirSync(join(root, folder), { recursive: true, withFileTypes: true }))
  .filter((entry) => entry.isFile() && /\.(cpp|h|cu|cuh)$/.test(entry.name))
  .map((entry) => relative(root, join(entry.parentPath, entry.name)))
  .sort();

/** @type {unknown} The package has no types. */
const clangFormat = createRequire(import.meta.url)('clang-format');
const { getNativeBinary } = /** @type {{ getNativeBinary: () => string }} */ (clangFormat);
const options = mode === '--write' ? ['-i'] : ['--dry-run', '--Werror'];
const { status, error } = spawnSync(getNativeBinary(), [...options, ...files], { cwd: root, stdio: 'inherit' });
if (error) console.error(error.message);
if (status === 0) console.log(`clang-format: ${files.length} files ${mode === '--write' ? 'formatted' : 'checked'}`);
process.exit(status ?? 1);
