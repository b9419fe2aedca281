/**
 * Patch tokens in a safetensors file: a clip for a machine without ffmpeg. One tensor `tokens`, uint8 [T, Y, X, 64],
 * and metadata that says which layout its 64 features have.
 */
import { VsaError, show } from '../errors.js';
import { quote } from '../files/io.js';
import { SafetensorsFile, writeSafetensors } from '../files/safetensors.js';
import { TOKEN_FEATURES, TOKEN_PIXELS, framesFor } from './cells.js';
import type { TokenShape } from './cells.js';
import { printable } from '../media/text.js';

/** Names the features and their order in cells.ts; a change of either is a new layout. */
export const TOKENS_LAYOUT = 'vsa-patch-tokens/1';
const TENSOR = 'tokens';

export interface TokensFile {
  /** uint8 [T, Y, X, 64] */
  tokens: Uint8Array;
  shape: TokenShape;
  /** Where the clip came from, as a person would say it; never a path. */
  sourceName: string;
}

/** @throws VsaError ERR_FILE if the file cannot be written. */
export async function writeTokens(path: string, { tokens, shape, sourceName }: TokensFile): Promise<void> {
  const [T, Y, X] = shape;
  await writeSafetensors(
    path,
    { [TENSOR]: { dtype: 'uint8', shape: [T, Y, X, TOKEN_FEATURES], data: tokens } },
    {
      metadata: {
        layout: TOKENS_LAYOUT,
        source: sourceName,
        frames: String(framesFor(T)),
        size: `${X * TOKEN_PIXELS}x${Y * TOKEN_PIXELS}`,
      },
    },
  );
}

/**
 * Reads patch tokens. The header is checked before any tensor is read.
 * @param checkShape called with the token grid before its tokens are read; may throw
 * @throws VsaError ERR_FILE if the file cannot be read; ERR_FILE_FORMAT if it is anything but patch tokens.
 */
export async function readTokens(path: string, checkShape: (shape: TokenShape) => void): Promise<TokensFile> {
  const fail = (got: string, wanted: string): never => {
    throw new VsaError({ code: 'ERR_FILE_FORMAT', argument: 'tokens', got: `${show(path)} with ${got}`, wanted });
  };
  const file = await SafetensorsFile.open(path);
  try {
    const { metadata } = file;
    if (metadata['layout'] !== TOKENS_LAYOUT) {
      const layout = metadata['layout'] === undefined ? 'no layout' : `layout ${quote(metadata['layout'])}`;
      fail(layout, `layout ${TOKENS_LAYOUT}, as --export-tokens writes it`);
    }
    if (!file.has(TENSOR)) fail(`no tensor ${TENSOR}`, `a tensor ${TENSOR}`);
    const { dtype, shape } = file.info(TENSOR);
    const [T, Y, X, features] = shape;
    if (dtype !== 'uint8' || shape.length !== 4 || features !== TOKEN_FEATURES || shape.includes(0)) {
      fail(`${dtype} ${show(shape)}`, `uint8 [T, Y, X, ${TOKEN_FEATURES}] of at least one token`);
    }
    const grid: TokenShape = [T!, Y!, X!];
    checkShape(grid);
    const wanted = { frames: String(framesFor(grid[0])), size: `${grid[2] * TOKEN_PIXELS}x${grid[1] * TOKEN_PIXELS}` };
    for (const [key, value] of Object.entries(wanted)) {
      if (metadata[key] !== value) {
        const got = metadata[key] === undefined ? `no ${key}` : `${key} ${quote(metadata[key])}`;
        fail(got, `${key} ${value} for ${grid.join('x')} tokens`);
      }
    }
    const { data } = await file.read(TENSOR);
    return { tokens: data, shape: grid, sourceName: printable(metadata['source'] ?? 'patch tokens') };
  } finally {
    await file.close();
  }
}
