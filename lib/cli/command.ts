/** How a command is added to `vsa`: options, help, errors and exit codes. */

import { type Command, Option } from 'commander';
import { reportError } from './report.js';

export const EXIT_CODES = `
Exit codes: 0 done; 1 something failed (a check that does not hold, a file, a device); 2 wrong usage.`;
const JSON_OBJECT = 'print one JSON object on stdout';

/**
 * Adds a command whose action's errors become sentences and exit codes. Actions load what they need themselves.
 * Arguments after the name, as in 'bench [op]', come to the action as options of that name.
 */
export function command(
  program: Command,
  name: string,
  summary: string,
  options: readonly Option[],
  examples: string,
  action: (options: never) => Promise<number>,
  json = JSON_OBJECT,
): void {
  const one = program.command(name).summary(summary).description(summary).allowExcessArguments(false);
  for (const option of [...options, new Option('--json', json).default(false)]) one.addOption(option);
  one.addHelpText('after', `\nExamples:\n${examples}\n${EXIT_CODES}`);
  one.action(async () => {
    const given = one.opts<{ json: boolean }>();
    const args = Object.fromEntries(one.registeredArguments.map((argument, i) => [argument.name(), one.args[i]]));
    try {
      process.exitCode = await action({ ...given, ...args } as never);
    } catch (error) {
      process.exitCode = reportError(error, given.json);
    }
  });
}

/** A new one each time: commands change what they are given. */
export function deviceOption(): Option {
  return new Option('--device <name>', "'cpu', 'cuda' or 'cuda:N' (default: the best there is)");
}
