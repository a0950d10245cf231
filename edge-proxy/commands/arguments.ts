import { type ParseArgsOptionsConfig, parseArgs } from 'node:util';
import { HoldfastError } from '#contract/errors.ts';
import { didYouMean } from './suggestion.ts';

export interface ArgumentRules<T extends ParseArgsOptionsConfig> {
  /** The words before the options, for messages: `vault backup`. */
  readonly command: string;
  readonly options: T;
  /** Options (without dashes) that must be given. */
  readonly required?: readonly (keyof T & string)[];
  /** How many arguments without a dash may follow. Default: none. */
  readonly positionals?: { readonly min?: number; readonly max: number; readonly what: string };
}

/**
 * Parses a command's arguments with node:util's parseArgs. `--no-x` is understood for booleans. Throws `usage`
 * with the nearest known option for an unknown one, and names what is missing or too much.
 *
 * @example const { values } = parseArguments({ command: 'demo', options: { size: { type: 'string' } } }, argv)
 */
export function parseArguments<const T extends ParseArgsOptionsConfig>(rules: ArgumentRules<T>, argv: string[]) {
  const help = `holdfast ${rules.command} --help`;
  refuseUnknown(rules.options, argv, help);
  const parsed = attempt(rules, argv, help);
  for (const name of rules.required ?? []) {
    if ((parsed.values as Record<string, unknown>)[name] === undefined) {
      throw new HoldfastError('usage', `holdfast ${rules.command} needs --${name}`, { remedy: `See ${help}` });
    }
  }
  const { min = 0, max, what } = rules.positionals ?? { max: 0, what: 'arguments' };
  const given = parsed.positionals.length;
  if (given < min)
    throw new HoldfastError('usage', `holdfast ${rules.command} needs ${what}`, { remedy: `See ${help}` });
  if (given > max) {
    throw new HoldfastError('usage', `Unexpected "${parsed.positionals[max]}"`, { remedy: `See ${help}` });
  }
  return parsed;
}

function attempt<const T extends ParseArgsOptionsConfig>(rules: ArgumentRules<T>, argv: string[], help: string) {
  try {
    return parseArgs({ args: argv, options: rules.options, allowPositionals: true, allowNegative: true });
  } catch (error) {
    // parseArgs explains itself in its first sentence; what follows is advice for programmers.
    const message = error instanceof Error ? error.message.split(/\.(?:\s|$)/)[0]! : String(error);
    throw new HoldfastError('usage', message, { remedy: `See ${help}`, cause: error });
  }
}

/** parseArgs refuses unknown options too, but cannot suggest. */
function refuseUnknown(options: ParseArgsOptionsConfig, argv: readonly string[], help: string): void {
  const { tokens } = parseArgs({
    args: [...argv],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
    allowNegative: true,
  });
  for (const token of tokens) {
    if (token.kind !== 'option' || Object.hasOwn(options, token.name)) continue;
    const bare = token.name.replace(/^no-/, '');
    if (bare !== token.name && options[bare]?.type === 'boolean') continue;
    const known = Object.keys(options).map((name) => `--${name}`);
    throw new HoldfastError('usage', `Unknown option ${token.rawName}`, {
      remedy: didYouMean(`--${token.name}`, known, help),
    });
  }
}
