/**
 * A float64 oracle of the whole operator and of each of its parts, in plain TypeScript: arrays in, arrays out.
 *
 * It is written from the mathematics, token by token, and shares nothing with the code that it judges. The tests and
 * `vsa check` compare against it.
 */
export * from './attention.js';
export * from './coarse.js';
export * from './combine.js';
export * from './compare.js';
export * from './dit.js';
export * from './grid.js';
export * from './layers.js';
export * from './pooling.js';
export * from './precision.js';
export * from './rotary.js';
export * from './rounding.js';
export * from './selection.js';
export * from './vsa.js';
