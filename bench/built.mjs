// The built package, which is what users get, with the types of its sources.

import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

/** @type {(path: string) => unknown} */
export const built = (path) => require(`../dist/${path}`);

export const vsa = /** @type {typeof import('../lib/index.js')} */ (built('index.js'));
export const { native } = /** @type {typeof import('../lib/binding.js')} */ (built('binding.js'));
