import type { Command, CommandIo } from '#contract/command.ts';
import { HoldfastError } from '#contract/errors.ts';
import { didYouMean } from './suggestion.ts';
import * as backup from './vault/backup.ts';
import * as deletePoint from './vault/delete.ts';
import * as init from './vault/init.ts';
import * as points from './vault/points.ts';
import * as restore from './vault/restore.ts';
import * as serve from './vault/serve.ts';
import * as stats from './vault/stats.ts';
import * as verify from './vault/verify.ts';

export const verbs: Readonly<Record<string, Command>> = {
  init,
  backup,
  restore,
  points,
  verify,
  delete: deletePoint,
  stats,
  serve,
};

export const summary = 'Work with a vault in a folder, without any control plane';
export const usage = `Usage: holdfast vault <verb> --repo DIR --key-file F [options]

${Object.entries(verbs)
  .map(([name, verb]) => `  ${name.padEnd(10)}${verb.summary}`)
  .join('\n')}

'holdfast vault <verb> --help' tells more about one.`;

export async function run(argv: string[], io: CommandIo): Promise<number> {
  const [name = '', ...rest] = argv;
  const verb = Object.hasOwn(verbs, name) ? verbs[name] : undefined;
  if (verb === undefined) {
    throw new HoldfastError('usage', name === '' ? 'holdfast vault needs a verb' : `Unknown verb: vault ${name}`, {
      remedy: didYouMean(name, Object.keys(verbs), 'holdfast vault --help'),
    });
  }
  return await verb.run(rest, io);
}
