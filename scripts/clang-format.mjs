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

const modes = { '--write': ['-i'], '--check': ['--dry-run', '--Werror'] };
const options = modes[/** @type {keyof typeof modes} */ (process.argv[2])];
if (options === undefined || process.argv.length > 3) {
  console.error('usage: node scripts/clang-format.mjs --write | --check');
  process.exit(2);
}

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const files = readdirSync(join(root, 'csrc'), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && /\.(cpp|h|cu|cuh)$/.test(entry.name))
  .map((entry) => relative(root, join(entry.parentPath, entry.name)))
  .sort();

const require = createRequire(import.meta.url);
const clangFormat = join(dirname(require.resolve('clang-format/package.json')), 'index.js');
const { status, error } = spawnSync(process.execPath, [clangFormat, ...options, ...files], {
  cwd: root,
  stdio: 'inherit',
});
if (error) console.error(error.message);
if (status === 0)
  console.log(`clang-format: ${files.length} files ${process.argv[2] === '--write' ? 'formatted' : 'checked'}`);
process.exit(status ?? 1);
