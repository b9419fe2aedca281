/** The program of the loader's thread: makes batches of the clips that are asked for, one after the other. */
import { pathToFileURL } from 'node:url';
import { parentPort, workerData } from 'node:worker_threads';
import { makeBatch } from './batch.js';
import { toPlainError } from './messages.js';
import type { Answer, Request, WorkerData } from './messages.js';
import { MovingShapes } from './moving-shapes.js';
import { checkClipSource } from './source.js';
import type { ClipSource, SourceDescription } from './source.js';
import { VideoFolder } from './video-folder.js';

async function openSource(description: SourceDescription): Promise<ClipSource> {
  switch (description.kind) {
    case 'movingShapes':
      return new MovingShapes(description.options as ConstructorParameters<typeof MovingShapes>[0]);
    case 'videoFolder':
      return new VideoFolder(description.options as ConstructorParameters<typeof VideoFolder>[0]);
    case 'module': {
      const { default: make } = (await import(pathToFileURL(description.file).href)) as {
        default: (options: unknown) => ClipSource | Promise<ClipSource>;
      };
      return checkClipSource('source', await make(description.options));
    }
    case 'local':
      throw new Error('a local source in a worker'); // the loader sees to it that there is none
  }
}

const port = parentPort!;
const { description, grid } = workerData as WorkerData;
const opening = openSource(description);
opening.catch(() => undefined); // every request says so
let last = Promise.resolve();

async function answer(id: number, clips: readonly number[]): Promise<void> {
  let said: Answer;
  try {
    said = { id, tokens: await makeBatch(await opening, clips, grid) };
  } catch (error) {
    said = { id, error: toPlainError(error) };
  }
  port.postMessage(said, 'tokens' in said ? [said.tokens.buffer as ArrayBuffer] : []);
}

port.on('message', (request: Request) => {
  if (request === 'close') {
    // Without a listener the thread ends as soon as what is under way has ended.
    port.close();
    opening.then((source) => source.close?.()).catch(() => undefined);
    return;
  }
  last = last.then(() => answer(request.id, request.clips));
});
