/** Small helpers of the report: text that is safe in HTML, numbers as a person reads them. */

/** Text for HTML, in elements and in quoted attributes. */
export function escapeHtml(text: string): string {
  const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
  return text.replace(/[&<>"']/g, (character) => entities[character]!);
}

/** JSON that may stand inside a script element: no `<` can end it. */
export function scriptJson(value: unknown): string {
  return JSON.stringify(value).replace(/</g, '\\u003c');
}

/** A share of 1 as '84.1 %'. */
export function percent(share: number, digits = 1): string {
  return `${(share * 100).toFixed(digits)} %`;
}

/** Milliseconds as '195 ms' or '2.97 s'. */
export function duration(ms: number): string {
  if (ms >= 100_000) return `${(ms / 1000).toFixed(0)} s`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return ms >= 10 ? `${ms.toFixed(0)} ms` : `${ms.toFixed(2)} ms`;
}

/** Bytes as '33.7 MB'. */
export function bytes(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(2)} GB`;
  return count >= 1e6 ? `${(count / 1e6).toFixed(1)} MB` : `${(count / 1e3).toFixed(1)} kB`;
}

/** Floating point operations as '68.7 GFLOP'. */
export function flops(count: number): string {
  if (count >= 1e12) return `${(count / 1e12).toFixed(2)} TFLOP`;
  return count >= 1e9 ? `${(count / 1e9).toFixed(1)} GFLOP` : `${(count / 1e6).toFixed(1)} MFLOP`;
}

/** A ratio as '15.2x', with a true multiplication sign. */
export function times(ratio: number, digits = 1): string {
  return `${ratio >= 100 ? ratio.toFixed(0) : ratio.toFixed(digits)}×`;
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
