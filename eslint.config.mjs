// @ts-check
import eslint from '@eslint/js';
import { defineConfig, globalIgnores } from 'eslint/config';
import tseslint from 'typescript-eslint';

/**
 * The arrows between the folders of lib point downwards: cli and demo and check, attention, tensor and device, binding.
 * What the files of one layer must not import, besides what nobody but lib/binding.ts may: the addon.
 * @param {string[]} files
 * @param {{ regex: string, message: string }[]} forbidden
 * @returns {import('eslint').Linter.Config}
 */
function layer(files, ...forbidden) {
  const addon = { regex: '^node-gyp-build$|\\.node$', message: 'Only lib/binding.ts loads the addon.' };
  return { files, rules: { 'no-restricted-imports': ['error', { patterns: [addon, ...forbidden] }] } };
}

/**
 * @param {string} folders an alternation of folders of lib
 * @param {string} message
 */
const outside = (folders, message) => ({ regex: `^\\.\\.?/(.*/)?(${folders})(/|\\.js$)`, message });

export default defineConfig(
  globalIgnores(['build/', 'dist/', 'prebuilds/', 'coverage/']),
  eslint.configs.recommended,
  tseslint.configs.strictTypeChecked,
  {
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      'no-undef': 'off', // the compiler knows better
      eqeqeq: 'error',
      'no-console': 'error',
      'prefer-const': 'error',
      // Loops over typed arrays: noUncheckedIndexedAccess makes every a[i] possibly undefined, "!" says it is not.
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      // Arguments come from JavaScript too: they are checked at run time against what their types already promise.
      '@typescript-eslint/no-unnecessary-condition': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
    },
  },

  layer(['lib/**/*.ts']),
  { files: ['lib/binding.ts'], rules: { 'no-restricted-imports': 'off' } },
  layer(
    ['lib/errors.ts', 'lib/validate.ts'],
    outside(
      'binding|device|tensor|files|attention|autograd|nn|models|media|data|train|oracle|bench|check|cli|demo|index',
      'Errors and checks of arguments know nothing above them.',
    ),
  ),
  layer(
    ['lib/tensor/**', 'lib/device/**', 'lib/files/**'],
    outside(
      'attention|autograd|nn|models|media|data|train|oracle|bench|check|cli|demo|index',
      'Tensors, devices and files know no operator, and nothing above one.',
    ),
  ),
  layer(
    ['lib/attention/**'],
    outside(
      'files|autograd|nn|models|media|data|train|oracle|bench|check|cli|demo|index',
      'Operators know nothing of files, of the oracle or of the programs.',
    ),
  ),
  layer(
    ['lib/media/**'],
    outside(
      'data|binding|device|tensor|attention|autograd|nn|models|oracle|bench|check|cli|demo|index',
      'Media are plain arrays and files: they know no tensor, no source of clips and no program.',
    ),
  ),
  layer(
    ['lib/data/**'],
    outside(
      'binding|device|tensor|attention|autograd|nn|models|oracle|bench|check|cli|demo|index',
      'Clips are plain arrays: a worker makes them without tensors and without the addon.',
    ),
  ),
  layer(
    ['lib/autograd/**'],
    outside('nn|models|media|data|train|oracle|bench|check|cli|demo', 'The tape knows no layer and no model.'),
  ),
  layer(
    ['lib/nn/**'],
    outside('models|media|data|train|oracle|bench|check|cli|demo', 'Layers know no model and no program.'),
  ),
  layer(
    ['lib/models/**'],
    outside('media|data|train|oracle|bench|check|cli|demo', 'Models know nothing of data and of programs.'),
  ),
  layer(['lib/train/**'], outside('oracle|bench|check|cli|demo', 'Training knows nothing of the other programs.')),
  layer(['lib/oracle/**'], {
    regex: '^\\.\\./(?!errors\\.js$)',
    message: 'The oracle is independent of what it judges: it imports nothing of lib but the errors.',
  }),
  layer(
    ['lib/demo/**', 'lib/check/**', 'lib/bench/**'],
    outside('cli', 'The command line calls the demo, the check and the benchmark, not the other way round.'),
  ),
  {
    files: ['lib/cli/**', 'scripts/**', 'bench/**', 'examples/**', 'test/fresh/**'],
    rules: { 'no-console': 'off' },
  },
  { files: ['**/*.cjs'], rules: { '@typescript-eslint/no-require-imports': 'off' } },
);
