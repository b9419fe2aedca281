// The environment of a machine that has never seen this checkout, and one without a CUDA toolkit.
import { accessSync, mkdirSync, mkdtempSync, readdirSync, symlinkSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/**
 * Without what npm run adds for its script: the checkout's own node_modules/.bin must not help.
 * @param {string} root the checkout
 * @returns {NodeJS.ProcessEnv}
 */
export function freshEnvironment(root) {
  const npm = /^(npm_(package|lifecycle|command|execpath|node_execpath)|npm_config_(local_)?prefix$|INIT_CWD$)/;
  const ours = /^(VSA_|PREBUILDS_ONLY$|CUDA_|CUDACXX$|CUDAFLAGS$|CMAKE_|NODE_ENV$|NODE_OPTIONS$|NODE_PATH$)/;
  const kept = Object.entries(process.env).filter(([name]) => !npm.test(name) && !ours.test(name));
  const path = (process.env['PATH'] ?? '').split(delimiter);
  const outside = path.filter(
    (folder) => folder !== '' && !folder.startsWith(`${root}/`) && !/node-gyp-bin$/.test(folder),
  );
  return { ...Object.fromEntries(kept), PATH: outside.join(delimiter) };
}

/**
 * The same without nvcc: folders of PATH that hold one are replaced by folders of links to all the rest of them.
 * @param {NodeJS.ProcessEnv} env
 * @param {string} scratch an empty folder
 * @returns {NodeJS.ProcessEnv}
 */
export function withoutCuda(env, scratch) {
  mkdirSync(scratch, { recursive: true });
  const folders = (env['PATH'] ?? '').split(delimiter).map((folder) => {
    try {
      accessSync(join(folder, 'nvcc'));
    } catch {
      return folder;
    }
    const copy = mkdtempSync(join(scratch, 'bin-'));
    for (const name of readdirSync(folder)) {
      if (name !== 'nvcc') symlinkSync(join(folder, name), join(copy, name));
    }
    return copy;
  });
  return { ...env, PATH: folders.join(delimiter) };
}
