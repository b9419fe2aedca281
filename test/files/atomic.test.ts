import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { transformFileSync } from '@swc/core';
import { writeFileAtomic } from '../../lib/files/atomic.js';
import { failure, put, scratch, scratchNames, useScratchFolder } from './support.js';

useScratchFolder();

function* failing(message: string): Generator<string> {
  yield 'half of the new content';
  throw new Error(message);
}

describe('content', () => {
  test('text, bytes and iterables of both', async () => {
    const path = scratch();
    await writeFileAtomic(path, 'ä text');
    expect(readFileSync(path, 'utf8')).toBe('ä text');
    await writeFileAtomic(path, Uint8Array.of(1, 2, 3));
    expect([...readFileSync(path)]).toEqual([1, 2, 3]);
    await writeFileAtomic(path, ['a', Uint8Array.of(0x62), '']);
    expect(readFileSync(path, 'utf8')).toBe('ab');
    await writeFileAtomic(
      path,
      (async function* () {
        yield 'x';
        await Promise.resolve();
        yield Buffer.from('y');
      })(),
    );
    expect(readFileSync(path, 'utf8')).toBe('xy');
    await writeFileAtomic(path, []);
    expect(statSync(path).size).toBe(0);
    expect(scratchNames()).toEqual(['file']);
  });

  test('more bytes than one system call is given', async () => {
    const bytes = Buffer.alloc((1 << 24) * 2 + 5);
    for (let i = 0; i < bytes.length; i += 4093) bytes[i] = i;
    await writeFileAtomic(scratch(), bytes);
    expect(readFileSync(scratch()).equals(bytes)).toBe(true);
  });

  test('what is neither text nor bytes is refused, and the old file stays', async () => {
    const path = put('old');
    await failure(writeFileAtomic(path, 7 as never), 'ERR_ARGUMENT', 'data', '7');
    await failure(writeFileAtomic(path, ['new', 7] as never), 'ERR_ARGUMENT', 'data', '7');
    await failure(writeFileAtomic(null as never, 'new'), 'ERR_ARGUMENT', 'path', 'null');
    expect(readFileSync(path, 'utf8')).toBe('old');
    expect(scratchNames()).toEqual(['file']);
  });

  test('many writes of one file at once leave one of them whole', async () => {
    const contents = Array.from({ length: 8 }, (_, i) => String(i).repeat(100_000));
    await Promise.all(contents.map((content) => writeFileAtomic(scratch(), content)));
    expect(contents).toContain(readFileSync(scratch(), 'utf8'));
    expect(scratchNames()).toEqual(['file']);
  });
});

describe('the file that was there', () => {
  test('survives content that fails half-way', async () => {
    const path = put('old');
    await expect(writeFileAtomic(path, failing('no more'))).rejects.toThrow('no more');
    expect(readFileSync(path, 'utf8')).toBe('old');
    expect(scratchNames()).toEqual(['file']);
  });

  test('keeps its permissions', async () => {
    const path = put('old');
    chmodSync(path, 0o640);
    await writeFileAtomic(path, 'new');
    expect(statSync(path).mode & 0o777).toBe(0o640);
  });

  test('is written through a symbolic link', async () => {
    mkdirSync(scratch('inner'));
    writeFileSync(scratch('inner/real'), 'old');
    symlinkSync(scratch('inner/real'), scratch('link'));
    await writeFileAtomic(scratch('link'), 'new');
    expect(lstatSync(scratch('link')).isSymbolicLink()).toBe(true);
    expect(readFileSync(scratch('inner/real'), 'utf8')).toBe('new');
  });

  test('is not replaced if it is a folder or a pipe', async () => {
    mkdirSync(scratch('folder'));
    await failure(writeFileAtomic(scratch('folder'), 'new'), 'ERR_FILE', 'a folder');
    execFileSync('mkfifo', [scratch('pipe')]);
    await failure(writeFileAtomic(scratch('pipe'), 'new'), 'ERR_FILE', 'pipe');
    expect(scratchNames()).toEqual(['folder', 'pipe']);
  });
});

describe('system errors', () => {
  test.each([
    ['a folder that is not there', 'nowhere/file', 'ENOENT'],
    ['a file in place of the folder', 'file/file', 'ENOTDIR'],
    ['a name that is too long', 'x'.repeat(300), 'ENAMETOOLONG'],
    ['a name with a zero byte', 'a\0b', 'ERR_INVALID_ARG_VALUE'],
  ])('%s', async (_, name, code) => {
    put('old');
    const path = `${dirname(scratch())}/${name}`;
    const error = await failure(writeFileAtomic(path, 'new'), 'ERR_FILE');
    expect(error.argument).toBe(path);
    expect(error.cause).toMatchObject({ code });
    expect(scratchNames()).toEqual(['file']);
  });
});

/** Runs the module under test in a process of its own, which can then end in ways a test cannot. */
describe('a process that ends in the middle of a write', () => {
  let out = '';

  beforeAll(() => {
    out = mkdtempSync(join(tmpdir(), 'vsa-compiled-'));
    mkdirSync(join(out, 'files'), { recursive: true });
    for (const name of ['errors', 'files/io', 'files/atomic']) {
      const { code } = transformFileSync(join(__dirname, '../../lib', `${name}.ts`), {
        jsc: { target: 'es2022', parser: { syntax: 'typescript' } },
        module: { type: 'commonjs' },
      });
      writeFileSync(join(out, `${name}.js`), code);
    }
  });

  afterAll(() => {
    rmSync(out, { recursive: true });
  });

  const start = (middle: string, before = '', shell = ''): ChildProcess => {
    mkdirSync(scratch('data'));
    put('old', 'data/file');
    const script = `
      const { writeFileAtomic } = require(${JSON.stringify(join(out, 'files/atomic.js'))});
      ${before}
      async function* content() {
        yield 'half of the new content';
        ${middle}
        yield 'the other half';
      }
      writeFileAtomic(${JSON.stringify(scratch('data/file'))}, content()).catch((error) => {
        console.log(error.code, error.cause.code);
        process.exitCode = 9;
      });`;
    put(script, 'main.js');
    const command = `${shell} exec "$0" "$1"`;
    return spawn('bash', ['-c', command, process.execPath, scratch('main.js')], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  };

  const output = (child: ChildProcess): { text: string } => {
    const seen = { text: '' };
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (seen.text += text));
    return seen;
  };

  const ended = (child: ChildProcess): Promise<{ code: number | null; signal: string | null }> =>
    new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal })));

  const WAIT = `console.log('ready'); await new Promise((resolve) => setTimeout(resolve, 20_000));`;
  const names = (): string[] =>
    execFileSync('ls', ['-A', scratch('data')], { encoding: 'utf8' })
      .trim()
      .split('\n')
      .sort(); // ls sorts by locale

  test.each(['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGKILL'] as const)('%s', async (signal) => {
    const child = start(WAIT);
    child.stdout?.once('data', () => {
      expect(names()).toHaveLength(2);
      child.kill(signal);
    });
    expect(await ended(child)).toEqual({ code: null, signal });
    expect(readFileSync(scratch('data/file'), 'utf8')).toBe('old');
    // Nobody can clean up after SIGKILL, but what is left has a name that says what it is.
    if (signal === 'SIGKILL') expect(names()).toEqual([expect.stringMatching(/^\.vsa-.*\.tmp$/), 'file']);
    else expect(names()).toEqual(['file']);
  });

  test.each([
    ['process.exit()', 'process.exit(3);', 3],
    [
      'an uncaught exception',
      "setTimeout(() => { throw new Error('expected by the test'); }); await new Promise(() => {});",
      1,
    ],
  ])('%s', async (_, middle, code) => {
    const child = start(middle);
    expect((await ended(child)).code).toBe(code);
    expect(readFileSync(scratch('data/file'), 'utf8')).toBe('old');
    expect(names()).toEqual(['file']);
  });

  test('a signal the program handles itself does not disturb the write', async () => {
    const child = start(
      `console.log('ready'); await told; clearTimeout(alarm);`,
      `let tell;
      const told = new Promise((resolve) => (tell = resolve));
      const alarm = setTimeout(() => process.exit(4), 20_000);
      process.on('SIGTERM', tell);`,
    );
    child.stdout?.once('data', () => child.kill('SIGTERM'));
    expect(await ended(child)).toEqual({ code: 0, signal: null });
    expect(readFileSync(scratch('data/file'), 'utf8')).toBe('half of the new contentthe other half');
    expect(names()).toEqual(['file']);
  });

  test('a disk that takes no more: typed error, old file, no temporary file', async () => {
    // A limit on the size of files stands for a full disk: write() fails half-way just so.
    const child = start('yield Buffer.alloc(1 << 20);', '', 'ulimit -f 64;');
    const seen = output(child);
    expect((await ended(child)).code).toBe(9);
    expect(seen.text.trim()).toBe('ERR_FILE EFBIG');
    expect(readFileSync(scratch('data/file'), 'utf8')).toBe('old');
    expect(names()).toEqual(['file']);
  });

  test('leaves no listeners behind', async () => {
    const count = (): number => process.listenerCount('exit') + process.listenerCount('SIGINT');
    const before = count();
    const during: number[] = [];
    await writeFileAtomic(
      scratch(),
      (function* () {
        during.push(count());
        yield 'x';
      })(),
    );
    expect(during).toEqual([before + 2]);
    expect(count()).toBe(before);
  });
});
