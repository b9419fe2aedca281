'use strict';

// What a CommonJS program does with the installed package, in the main thread and in worker threads. Prints a digest.
const { Worker, isMainThread, parentPort } = require('node:worker_threads');
const vsa = require('video-sparse-attention');
const exercise = require('./exercise.cjs');

/** @returns {Promise<unknown>} what a worker thread that runs this file computed, once it has ended */
function inWorker() {
  return new Promise((resolve, reject) => {
    /** @type {unknown} */
    let digest;
    new Worker(__filename)
      .on('message', (/** @type {unknown} */ message) => (digest = message))
      .on('error', reject)
      .on('exit', (code) => {
        if (code === 0) resolve(digest);
        else reject(new Error(`the worker ended with ${code}`));
      });
  });
}

async function main() {
  // Two at once, then one more: threads that end must not take the addon with them.
  const workers = [...(await Promise.all([inWorker(), inWorker()])), await inWorker()];
  const digest = exercise(vsa);
  for (const other of workers) {
    if (other !== digest) throw new Error(`a worker thread computed ${String(other)}, the main thread ${digest}`);
  }
  console.log(digest);
}

if (isMainThread) void main();
else parentPort?.postMessage(exercise(vsa));
