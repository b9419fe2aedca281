/**
 * The matrix products of masked attention, one query's row at a time over a list of allowed rows of a [rows, n] matrix.
 *
 * Four rows go through a loop together: that halves the time, and is all the cleverness the oracle has.
 */
import { type Precision } from './precision.js';

export interface RowProducts {
  /** out[c] = dot(x[xStart .. +n), matrix row rows[c]) for c < count. */
  dots(
    x: Float64Array,
    xStart: number,
    matrix: Float64Array,
    rows: Int32Array,
    count: number,
    n: number,
    out: Float64Array,
  ): void;
  /** y[yStart .. +n) += sum over c < count of weights[c] * matrix row rows[c]. */
  weightedSum(
    weights: Float64Array,
    matrix: Float64Array,
    rows: Int32Array,
    count: number,
    n: number,
    y: Float64Array,
    yStart: number,
  ): void;
  /** matrix row rows[c] += weights[c] * x[xStart .. +n) for c < count. */
  addOuter(
    weights: Float64Array,
    x: Float64Array,
    xStart: number,
    matrix: Float64Array,
    rows: Int32Array,
    count: number,
    n: number,
  ): void;
}

/** Products in float64, or as chains of float32 multiply-adds in the order of the rows. */
export function rowProductsOf(precision: Precision): RowProducts {
  return precision.accumulate === 'float32' ? FLOAT32_PRODUCTS : FLOAT64_PRODUCTS;
}

const FLOAT64_PRODUCTS: RowProducts = {
  dots(x, xStart, matrix, rows, count, n, out) {
    let c = 0;
    for (; c + 3 < count; c += 4) {
      const [row0, row1, row2, row3] = [rows[c]! * n, rows[c + 1]! * n, rows[c + 2]! * n, rows[c + 3]! * n];
      let [sum0, sum1, sum2, sum3] = [0, 0, 0, 0];
      for (let d = 0; d < n; d++) {
        const factor = x[xStart + d]!;
        sum0 += factor * matrix[row0 + d]!;
        sum1 += factor * matrix[row1 + d]!;
        sum2 += factor * matrix[row2 + d]!;
        sum3 += factor * matrix[row3 + d]!;
      }
      out[c] = sum0;
      out[c + 1] = sum1;
      out[c + 2] = sum2;
      out[c + 3] = sum3;
    }
    for (; c < count; c++) {
      const row = rows[c]! * n;
      let sum = 0;
      for (let d = 0; d < n; d++) sum += x[xStart + d]! * matrix[row + d]!;
      out[c] = sum;
    }
  },

  weightedSum(weights, matrix, rows, count, n, y, yStart) {
    let c = 0;
    for (; c + 3 < count; c += 4) {
      const [row0, row1, row2, row3] = [rows[c]! * n, rows[c + 1]! * n, rows[c + 2]! * n, rows[c + 3]! * n];
      const [w0, w1, w2, w3] = [weights[c]!, weights[c + 1]!, weights[c + 2]!, weights[c + 3]!];
      for (let d = 0; d < n; d++) {
        const pair = w0 * matrix[row0 + d]! + w1 * matrix[row1 + d]!;
        y[yStart + d]! += pair + (w2 * matrix[row2 + d]! + w3 * matrix[row3 + d]!);
      }
    }
    for (; c < count; c++) {
      const row = rows[c]! * n;
      for (let d = 0; d < n; d++) y[yStart + d]! += weights[c]! * matrix[row + d]!;
    }
  },

  addOuter(weights, x, xStart, matrix, rows, count, n) {
    let c = 0;
    for (; c + 3 < count; c += 4) {
      const [row0, row1, row2, row3] = [rows[c]! * n, rows[c + 1]! * n, rows[c + 2]! * n, rows[c + 3]! * n];
      const [w0, w1, w2, w3] = [weights[c]!, weights[c + 1]!, weights[c + 2]!, weights[c + 3]!];
      for (let d = 0; d < n; d++) {
        const factor = x[xStart + d]!;
        matrix[row0 + d]! += w0 * factor;
        matrix[row1 + d]! += w1 * factor;
        matrix[row2 + d]! += w2 * factor;
        matrix[row3 + d]! += w3 * factor;
      }
    }
    for (; c < count; c++) {
      const row = rows[c]! * n;
      for (let d = 0; d < n; d++) matrix[row + d]! += weights[c]! * x[xStart + d]!;
    }
  },
};

const { fround } = Math; // by name: see rounding.ts

const FLOAT32_PRODUCTS: RowProducts = {
  dots(x, xStart, matrix, rows, count, n, out) {
    let c = 0;
    for (; c + 3 < count; c += 4) {
      const [row0, row1, row2, row3] = [rows[c]! * n, rows[c + 1]! * n, rows[c + 2]! * n, rows[c + 3]! * n];
      let [sum0, sum1, sum2, sum3] = [0, 0, 0, 0];
      for (let d = 0; d < n; d++) {
        const factor = x[xStart + d]!;
        sum0 = fround(sum0 + factor * matrix[row0 + d]!);
        sum1 = fround(sum1 + factor * matrix[row1 + d]!);
        sum2 = fround(sum2 + factor * matrix[row2 + d]!);
        sum3 = fround(sum3 + factor * matrix[row3 + d]!);
      }
      out[c] = sum0;
      out[c + 1] = sum1;
      out[c + 2] = sum2;
      out[c + 3] = sum3;
    }
    for (; c < count; c++) {
      const row = rows[c]! * n;
      let sum = 0;
      for (let d = 0; d < n; d++) sum = fround(sum + x[xStart + d]! * matrix[row + d]!);
      out[c] = sum;
    }
  },

  weightedSum(weights, matrix, rows, count, n, y, yStart) {
    let c = 0;
    for (; c + 3 < count; c += 4) {
      const [row0, row1, row2, row3] = [rows[c]! * n, rows[c + 1]! * n, rows[c + 2]! * n, rows[c + 3]! * n];
      const [w0, w1, w2, w3] = [weights[c]!, weights[c + 1]!, weights[c + 2]!, weights[c + 3]!];
      for (let d = 0; d < n; d++) {
        let sum = fround(y[yStart + d]! + w0 * matrix[row0 + d]!);
        sum = fround(sum + w1 * matrix[row1 + d]!);
        sum = fround(sum + w2 * matrix[row2 + d]!);
        y[yStart + d] = fround(sum + w3 * matrix[row3 + d]!);
      }
    }
    for (; c < count; c++) {
      const row = rows[c]! * n;
      for (let d = 0; d < n; d++) y[yStart + d] = fround(y[yStart + d]! + weights[c]! * matrix[row + d]!);
    }
  },

  addOuter(weights, x, xStart, matrix, rows, count, n) {
    let c = 0;
    for (; c + 3 < count; c += 4) {
      const [row0, row1, row2, row3] = [rows[c]! * n, rows[c + 1]! * n, rows[c + 2]! * n, rows[c + 3]! * n];
      const [w0, w1, w2, w3] = [weights[c]!, weights[c + 1]!, weights[c + 2]!, weights[c + 3]!];
      for (let d = 0; d < n; d++) {
        const factor = x[xStart + d]!;
        matrix[row0 + d] = fround(matrix[row0 + d]! + w0 * factor);
        matrix[row1 + d] = fround(matrix[row1 + d]! + w1 * factor);
        matrix[row2 + d] = fround(matrix[row2 + d]! + w2 * factor);
        matrix[row3 + d] = fround(matrix[row3 + d]! + w3 * factor);
      }
    }
    for (; c < count; c++) {
      const row = rows[c]! * n;
      for (let d = 0; d < n; d++) matrix[row + d] = fround(matrix[row + d]! + weights[c]! * x[xStart + d]!);
    }
  },
};
