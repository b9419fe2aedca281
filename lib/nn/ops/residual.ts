/** The gated residual of adaLN-zero. */

import { native } from '../../binding.js';
import { checkSaved } from '../../attention/checks.js';
import { Saved } from '../../attention/saved.js';
import { dtypeCode } from '../../tensor/dtype.js';
import { tidy } from '../../tensor/scope.js';
import { handleOf, share, type Tensor } from '../../tensor/tensor.js';
import { checkOptions } from '../../validate.js';
import {
  checkChannelsLast,
  checkLike,
  checkOutputGradient,
  checkParameter,
  emptyLike,
  isWanted,
  rowsOf,
} from './checks.js';

export interface GatedResidualOptions {
  /** `[B, ..., C]` */
  x: Tensor;
  /** As `x`. */
  branch: Tensor;
  /** float32 `[B, C]` */
  gate: Tensor;
}

export interface GatedResidualGradients {
  /** The memory of the output's gradient, whose values it has. */
  x?: Tensor;
  branch?: Tensor;
  /** float32 `[B, C]` */
  gate?: Tensor;
}

class GatedResidualSaved extends Saved {
  /** @internal */
  constructor(
    /** @internal */
    readonly branch: Tensor,
    /** @internal */
    readonly gate: Tensor,
  ) {
    super([branch, gate]);
  }
}

/**
 * `output = x + branch * gate`, the gate a vector of each batch entry, in fp32. Source: Peebles and Xie, Scalable
 * Diffusion Models with Transformers (arXiv 2212.09748).
 */
export const gatedResidual = {
  /**
   * @throws VsaRangeError ERR_SHAPE; VsaTypeError ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED, ERR_ARGUMENT.
   */
  forward(options: GatedResidualOptions): { output: Tensor; saved: GatedResidualSaved } {
    checkOptions('options', options, ['x', 'branch', 'gate']);
    const x = checkChannelsLast('x', options.x, '[B, ..., C]', 2);
    const branch = checkLike('branch', options.branch, x, 'x');
    const B = x.shape[0]!;
    const gate = checkParameter('gate', options.gate, [B, x.shape.at(-1)!], '[B, C]', x);
    return tidy(() => {
      const output = emptyLike(x);
      if (x.size > 0) {
        native().gatedResidualForward({
          dtype: dtypeCode(x.dtype),
          ...rowsOf(x),
          groups: B,
          x: handleOf(x, 'x'),
          branch: handleOf(branch, 'branch'),
          gate: handleOf(gate, 'gate'),
          output: handleOf(output, 'output'),
        });
      }
      return { output, saved: new GatedResidualSaved(share(branch), share(gate)) };
    });
  },

  /** @returns The gradients, those in `wanted` if that is given. */
  backward(saved: GatedResidualSaved, grads: { output: Tensor }, wanted?: ReadonlySet<string>): GatedResidualGradients {
    const { branch, gate } = checkSaved('gatedResidual', saved, GatedResidualSaved);
    const doutput = checkOutputGradient(grads, branch);
    const [wantBranch, wantGate] = [isWanted(wanted, 'branch'), isWanted(wanted, 'gate')];
    return tidy(() => {
      const x = isWanted(wanted, 'x') && { x: share(doutput) };
      if (!wantBranch && !wantGate) return { ...x };
      const [dbranch, dgate] = [emptyLike(branch), emptyLike(gate)];
      if (gate.shape[0]! > 0) {
        native().gatedResidualBackward({
          dtype: dtypeCode(branch.dtype),
          ...rowsOf(branch),
          groups: gate.shape[0]!,
          branch: handleOf(branch, 'saved'),
          gate: handleOf(gate, 'saved'),
          doutput: handleOf(doutput, 'grads.output'),
          dbranch: handleOf(dbranch, 'branch'),
          dgate: handleOf(dgate, 'gate'),
        });
      }
      return { ...x, ...(wantBranch && { branch: dbranch }), ...(wantGate && { gate: dgate }) };
    });
  },
};
