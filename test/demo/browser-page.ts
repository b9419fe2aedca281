/** A page in a headless browser, driven over a pipe: what a reader's clicks and keys do to a report. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';

const FLAGS = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync'],
  ...[
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-dev-shm-usage',
    '--remote-debugging-pipe',
  ],
];

interface Reply {
  id?: number;
  method?: string;
  result?: Record<string, unknown>;
  error?: { message: string };
  params?: unknown;
}

export interface Page {
  /** The value of an expression in the page. */
  evaluate: (expression: string) => Promise<unknown>;
  /** Errors that the page has logged or thrown. */
  errors: () => string[];
  close: () => Promise<void>;
}

/** Opens a file; resolves when the page has loaded. */
export async function openPage(program: string, path: string): Promise<Page> {
  const profile = mkdtempSync(join(tmpdir(), 'vsa-browser-'));
  const stdio = ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] as const;
  // A process group of its own: all of the browser's processes write to the profile, and all must end before it goes.
  const args = [...FLAGS, `--user-data-dir=${profile}`, 'about:blank'];
  const browser = spawn(program, args, { stdio: [...stdio], detached: true });
  const [input, output] = [browser.stdio[3] as Duplex, browser.stdio[4] as Duplex];
  const waiting = new Map<number, (reply: Reply) => void>();
  const ended = new Promise<void>((resolve) => {
    browser.on('close', () => {
      for (const answer of waiting.values()) answer({ error: { message: 'the browser has ended' } });
      resolve();
    });
  });
  input.on('error', () => undefined); // writing to a browser that has ended: told by 'close'
  const errors: string[] = [];
  let loaded: () => void = () => undefined;
  let text = '';
  output.on('data', (chunk: Buffer) => {
    text += chunk.toString();
    for (let end = text.indexOf('\0'); end >= 0; end = text.indexOf('\0')) {
      const reply = JSON.parse(text.slice(0, end)) as Reply;
      text = text.slice(end + 1);
      if (reply.id !== undefined) waiting.get(reply.id)?.(reply);
      if (reply.method === 'Page.loadEventFired') loaded();
      if (reply.method === 'Runtime.exceptionThrown' || reply.method === 'Log.entryAdded') {
        errors.push(JSON.stringify(reply.params));
      }
    }
  });
  let last = 0;
  const send = (method: string, params: object = {}, sessionId?: unknown) =>
    new Promise<Record<string, unknown>>((resolve, reject) => {
      const id = ++last;
      waiting.set(id, ({ result, error }) => (error ? reject(new Error(error.message)) : resolve(result ?? {})));
      input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });

  const { targetId } = await send('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true });
  for (const domain of ['Page', 'Runtime', 'Log']) await send(`${domain}.enable`, {}, sessionId);
  const load = new Promise<void>((resolve) => (loaded = resolve));
  await send('Page.navigate', { url: `file://${path}` }, sessionId);
  await load;
  return {
    async evaluate(expression) {
      const { result, exceptionDetails } = await send(
        'Runtime.evaluate',
        { expression, returnByValue: true },
        sessionId,
      );
      if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
      return (result as { value?: unknown }).value;
    },
    errors: () => errors,
    async close() {
      const running = browser.exitCode === null && browser.signalCode === null;
      if (browser.pid !== undefined && running) process.kill(-browser.pid, 'SIGKILL');
      await ended;
      rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
    },
  };
}
