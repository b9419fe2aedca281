#!/usr/bin/env node
// Makes prebuilds/<os>-<arch>/video-sparse-attention.glibc.node, the binary that the npm package ships: it loads on
// every Node of the same operating system and processor (Node-API), with or without an NVIDIA driver.
// VSA_CUDA and VSA_CUDA_ARCHITECTURES decide what is in it, as for npm run build:native.
//
// npm takes a script of this name for the first half of "npm run build" too. That is no loss: both compile into the
// same folder, so that the second has nothing left to compile.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const prebuildify = createRequire(import.meta.url).resolve('prebuildify/bin.js');

/**
 * @param {string[]} args of node
 * @param {NodeJS.ProcessEnv} env
 */
function node(args, env = process.env) {
  const { status, error } = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit', env });
  if (error) console.error(error.message);
  if (status !== 0) process.exit(status ?? 1);
}

node([join(root, 'scripts', 'build-native.mjs')]);
// prebuildify moves what it finds in build/Release, where the checkout keeps its own: it gets a copy.
const work = join(root, 'build', 'prebuild');
const output = join(work, 'build', 'Release');
mkdirSync(output, { recursive: true });
copyFileSync(join(root, 'build', 'Release', 'vsa.node'), join(output, 'vsa.node'));
rmSync(join(root, 'prebuilds'), { recursive: true, force: true });
// --node-gyp true: the program of that name. There is nothing left for node-gyp to do.
const options = ['--napi', '--strip', '--tag-libc', '--node-gyp', 'true', '--target', process.versions.node];
node([prebuildify, ...options, '--name', 'video-sparse-attention', '--cwd', work, '--out', root]);
node(['--print', '`prebuild: ${require("node-gyp-build").path()} loads` + (require("node-gyp-build")(), "")'], {
  ...process.env,
  PREBUILDS_ONLY: '1',
});
