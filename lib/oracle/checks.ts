/** Checks shared by the oracle's functions: a wrong length would turn into NaN, which is a legal value here. */

/** Throws unless `array` has the product of `dims` elements. */
export function requireLength(name: string, array: ArrayLike<number>, dims: readonly number[]): void {
  const wanted = dims.reduce((product, dim) => product * dim, 1);
  if (array.length !== wanted) {
    throw new RangeError(`${name}: got ${array.length} elements, wanted [${dims.join(', ')}], ${wanted} elements`);
  }
}

/** Throws unless `value` is an integer in [min, max]. */
export function requireInteger(name: string, value: number, min: number, max = Infinity): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    const wanted = max === Infinity ? `an integer of at least ${min}` : `an integer from ${min} to ${max}`;
    throw new RangeError(`${name}: got ${value}, wanted ${wanted}`);
  }
}

/** Throws unless the query heads are a multiple of the key/value heads. */
export function requireHeads(heads: number, kvHeads: number): void {
  requireInteger('heads', heads, 1);
  requireInteger('kvHeads', kvHeads, 1);
  if (heads % kvHeads !== 0) throw new RangeError(`heads: got ${heads}, wanted a multiple of kvHeads = ${kvHeads}`);
}
