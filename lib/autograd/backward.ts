/** The backward: through the recorded calls, the last one first, and into the leaves. */

import { show, VsaError, VsaRangeError, VsaTypeError } from '../errors.js';
import { combine } from '../tensor/arithmetic.js';
import { keep, tidy, track } from '../tensor/scope.js';
import { handleOf, share, Tensor, type Version, versionOf } from '../tensor/tensor.js';
import { sameShape } from '../validate.js';
import { noGrad } from './mode.js';
import { type History, historyOf, type RecordedCall, trackedHistory } from './tape.js';

function checkGradient(call: RecordedCall, index: number, gradient: unknown): Tensor {
  const { shape, dtype, device } = call.models[index]!;
  let got = show(gradient);
  if (gradient instanceof Tensor) {
    const alike = sameShape(gradient.shape, shape) && gradient.dtype === dtype && gradient.device === device;
    if (alike && !gradient.disposed) return gradient;
    const state = gradient.disposed ? ', disposed' : '';
    got = `${show(gradient.shape)} ${gradient.dtype} on ${gradient.device.toString()}${state}`;
  }
  throw new VsaTypeError({
    code: 'ERR_GRADIENT',
    argument: `gradient ${String(index)} of ${call.name}`,
    got,
    wanted: `${show(shape)} ${dtype} on ${device.toString()}, as its input is`,
  });
}

/** Gradients on their way: what has come together for each call and leaf so far. It owns them. */
class Gathering<Key> {
  readonly sums = new Map<Key, Tensor>();

  /** Takes a tensor over. */
  add(key: Key, gradient: Tensor): void {
    const before = this.sums.get(key);
    if (before === undefined) {
      this.sums.set(key, keep(gradient));
      return;
    }
    this.sums.set(key, keep(combine(before, 1, gradient)));
    before.dispose();
    gradient.dispose();
  }

  /** Hands a tensor over. */
  take(key: Key): Tensor | undefined {
    const sum = this.sums.get(key);
    this.sums.delete(key);
    return sum;
  }

  dispose(): void {
    for (const sum of this.sums.values()) sum.dispose();
    this.sums.clear();
  }
}

/** The calls that a tensor came from, the last one first. */
function callsBehind(root: RecordedCall): RecordedCall[] {
  const found = new Set<RecordedCall>([root]);
  for (const call of found) {
    for (const input of call.inputs) if (input?.call !== undefined) found.add(input.call);
  }
  return [...found].sort((a, b) => b.number - a.number);
}

function firstGradient(root: Tensor, gradient: Tensor | undefined): Tensor {
  if (gradient === undefined) {
    if (root.size === 1) return Tensor.full(root.shape, 1, { dtype: root.dtype, device: root.device });
    throw new VsaRangeError({
      code: 'ERR_SHAPE',
      argument: 'this',
      got: show(root.shape),
      wanted: 'one element, or a gradient: backward(gradient)',
    });
  }
  if (!(gradient instanceof Tensor)) {
    throw new VsaTypeError({ code: 'ERR_ARGUMENT', argument: 'gradient', got: show(gradient), wanted: 'a Tensor' });
  }
  handleOf(gradient, 'gradient');
  if (!sameShape(gradient.shape, root.shape)) {
    const [got, wanted] = [show(gradient.shape), show(root.shape)];
    throw new VsaRangeError({ code: 'ERR_SHAPE', argument: 'gradient', got, wanted });
  }
  if (gradient.dtype !== root.dtype) {
    throw new VsaTypeError({ code: 'ERR_DTYPE', argument: 'gradient', got: gradient.dtype, wanted: root.dtype });
  }
  if (gradient.device !== root.device) {
    const [got, wanted] = [gradient.device.toString(), root.device.toString()];
    throw new VsaTypeError({ code: 'ERR_DEVICE', argument: 'gradient', got, wanted });
  }
  return share(gradient);
}

/** Runs one call's backward and hands its gradients on. Disposes the gradient it is given. */
function runCall(
  call: RecordedCall,
  gradient: Tensor,
  between: Gathering<RecordedCall>,
  leaves: Gathering<History>,
): void {
  try {
    call.checkReady();
    const wanted = call.inputs.map((input) => input !== undefined);
    const gradients = tidy(() => call.backward(gradient, wanted));
    // One tensor may be the gradient of several inputs, or the one that came in.
    const taken = new Set<Tensor>([gradient]);
    call.inputs.forEach((input, index) => {
      if (input === undefined || gradients[index] === undefined) return;
      const given = checkGradient(call, index, gradients[index]);
      const owned = taken.has(given) ? share(given) : given;
      taken.add(given);
      if (input.call !== undefined) between.add(input.call, owned);
      else leaves.add(input, owned);
    });
    for (const given of gradients) if (given !== undefined && !taken.has(given)) given.dispose();
  } finally {
    gradient.dispose();
  }
}

/** Runs the calls behind a tensor in the reverse of the order they were recorded in, so sums have a fixed order. */
function runCalls(root: History, first: Tensor, retainGraph: boolean, leaves: Gathering<History>): void {
  if (root.call === undefined) {
    leaves.add(root, first);
    return;
  }
  const between = new Gathering<RecordedCall>();
  const behind = callsBehind(root.call);
  for (const call of behind) call.use();
  between.add(root.call, first);
  try {
    for (const call of behind) {
      const arrived = between.take(call);
      if (arrived !== undefined) runCall(call, arrived, between, leaves);
      if (!retainGraph) call.free();
    }
  } finally {
    for (const call of behind) call.drop();
    between.dispose();
  }
}

/** Adds what has come together to the leaves' `grad`: all, or none if memory ends. */
function giveToLeaves(leaves: Gathering<History>, given: Tensor | undefined): void {
  // A gradient may be passed on as it is (by reshape or add): two leaves, or a leaf and the caller, must not share it.
  const taken = new Set<Version>(given === undefined ? [] : [versionOf(given)]);
  const totals = [...leaves.sums].flatMap(([leaf, sum]) => {
    if (leaf.forgotten) return [];
    const shared = taken.has(versionOf(sum));
    taken.add(versionOf(sum));
    if (leaf.grad !== undefined) return [{ leaf, total: combine(leaf.grad, 1, sum) }];
    return [{ leaf, total: shared ? sum.clone() : sum }];
  });
  for (const { leaf, total } of totals) {
    leaf.grad?.dispose();
    leaf.grad = keep(total);
    if (leaves.sums.get(leaf) === total) leaves.take(leaf);
  }
}

/** Of the backward that is running. */
let running: Gathering<History> | undefined;

/**
 * Gradients of a tensor with respect to every leaf it came from, added to the leaves' `grad`: all of them, or none if
 * it throws.
 */
export function runBackward(root: Tensor, gradient: Tensor | undefined, retainGraph: boolean): void {
  const history = trackedHistory(root);
  if (history === undefined) {
    throw new VsaError({
      code: 'ERR_GRADIENT',
      argument: 'this',
      got: 'a tensor without history',
      wanted: 'one that a differentiable function made of a tensor with requiresGrad, outside of noGrad',
    });
  }
  noGrad(() => {
    tidy(() => {
      const outer = running;
      const leaves = new Gathering<History>();
      running = leaves;
      try {
        runCalls(history, firstGradient(root, gradient), retainGraph, leaves);
        giveToLeaves(leaves, gradient);
      } finally {
        running = outer;
        leaves.dispose();
      }
    });
  });
}

/**
 * For a call's backward that goes through a graph of its own: the gradients of some leaves of it. Those of its other
 * leaves join what the running backward has gathered, and reach `grad` only with that.
 */
export function gradientsWithin(
  root: Tensor,
  gradient: Tensor,
  wanted: readonly Tensor[],
): readonly (Tensor | undefined)[] {
  const leaves = running!;
  runCalls(historyOf(root), firstGradient(root, gradient), false, leaves);
  return wanted.map((leaf) => {
    const sum = leaves.take(historyOf(leaf));
    if (sum !== undefined) track(sum);
    return sum;
  });
}
