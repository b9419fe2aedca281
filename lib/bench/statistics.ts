/** Of samples. */

/** Values in ascending order. */
export function sorted(values: readonly number[]): number[] {
  return [...values].sort((a, b) => a - b);
}

/** Linear between the two nearest. NaN of nothing. */
export function quantile(values: readonly number[], share: number): number {
  const ascending = sorted(values);
  const at = share * (ascending.length - 1);
  const [low, high] = [ascending[Math.floor(at)] ?? NaN, ascending[Math.ceil(at)] ?? NaN];
  return low + (high - low) * (at - Math.floor(at));
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);
