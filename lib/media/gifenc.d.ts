/** What lib/media/gif.ts uses of gifenc, which brings no types. */
declare module 'gifenc' {
  export type Color = [red: number, green: number, blue: number];

  /** At most `most` colours for RGBA pixels. */
  export function quantize(rgba: Uint8Array, most: number): Color[];

  /** The palette's index for every RGBA pixel. Reads the array's whole buffer. */
  export function applyPalette(rgba: Uint8Array, palette: Color[]): Uint8Array;

  export interface FrameOptions {
    /** The first frame's is the file's; others without one use it. */
    palette?: Color[];
    /** Milliseconds, rounded to hundredths of a second. */
    delay: number;
    /** 0: for ever. */
    repeat?: number;
  }

  export interface Encoder {
    writeFrame(indices: Uint8Array, width: number, height: number, options: FrameOptions): void;
    finish(): void;
    /** Everything written so far, a copy. */
    bytes(): Uint8Array;
    readonly stream: { reset(): void };
  }

  export function GIFEncoder(): Encoder;
}
