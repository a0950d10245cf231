import { resolve } from 'node:path';
import type { CommandIo } from '#contract/command.ts';
import { HoldfastError } from '#contract/errors.ts';
import { type Id, isId } from '#contract/ids.ts';
import { formatBytes, formatRate, formatSeconds } from '#contract/quantity.ts';
import type { EngineContext, RestoreRequest, RestoreResult } from '../../engine/request.ts';
import { runRestore } from '../../engine/restore/restore.ts';
import { type FileTarget, restoreToFile } from '../../engine/restore/restore-image.ts';
import { parseNbdUri } from '../../nbd/address.ts';
import { parseArguments } from '../arguments.ts';
import { findMachine } from './find-machine.ts';
import { engineContext, openVault, VAULT_OPTIONS, VAULT_OPTIONS_HELP } from './open-vault.ts';
import { printResult } from './output.ts';

export const summary = 'Restore a disk of a point to a file, a device, an NBD export or standard output';
export const usage = `Usage: holdfast vault restore --repo DIR --key-file F --machine NAME [--point ID|latest] [--disk-index N]
                             --to FILE|-|nbd+unix://… [--rollback] [--limit RATE] [--json]

Every chunk is checked before it is written. A file gets its name once it is whole; an interrupted restore
goes on where it was. Needs the folder (or a copy of it) and the key file, nothing else.

  --machine NAME          the machine: its name at backup, or its id
  --point ID|latest       the point (default: latest)
  --disk-index N          which of the machine's disks, from 0 (default: 0)
  --to TARGET             a file (sparse, replaced if it exists), a block device, an NBD export, or - for standard output
  --format raw|qcow2      what to make of a file (default: raw)
  --limit RATE            bytes a second from the vault, such as 20M
  --rollback              the target holds a version of this disk: read it, and write only what differs
${VAULT_OPTIONS_HELP}`;

const OPTIONS = {
  ...VAULT_OPTIONS,
  machine: { type: 'string' },
  point: { type: 'string' },
  'disk-index': { type: 'string' },
  to: { type: 'string' },
  format: { type: 'string', default: 'raw' },
  rollback: { type: 'boolean' },
  limit: { type: 'string' },
} as const;

export async function run(argv: string[], io: CommandIo): Promise<number> {
  const { values } = parseArguments(
    { command: 'vault restore', options: OPTIONS, required: ['repo', 'key-file', 'machine', 'to'] },
    argv,
  );
  const to = values.to!;
  const point = pointOf(values.point ?? 'latest');
  const index = values['disk-index'] ?? '0';
  if (!/^\d{1,4}$/.test(index))
    throw new HoldfastError('usage', `"${index}" is not a disk index`, {
      remedy: 'Give the number of the disk, from 0, in the order in which the disks were backed up',
    });
  const diskIndex = Number(index);
  if (to === '-' && values.rollback)
    throw new HoldfastError('usage', 'Standard output cannot be rolled back', { remedy: 'Leave out --rollback' });
  const format = formatOf(values.format);
  const vault = await openVault(values, 'read');
  const { context, done } = engineContext(to === '-' ? { ...values, json: false } : values, io, values.machine!);
  const request = {
    vault,
    machine: await findMachine(vault, values.machine!),
    point,
    diskIndex,
    rollback: values.rollback ?? false,
  };
  let result: RestoreResult;
  try {
    result = await restoreTo(to, format, request, context, io);
  } finally {
    done();
  }
  const messages = to === '-' ? { ...io, stdout: io.stderr } : io;
  printResult(messages, values.json, { machine: values.machine, to, ...result }, [describe(to, result)]);
  return 0;
}

function formatOf(text: string): FileTarget['format'] {
  if (text === 'raw' || text === 'qcow2') return text;
  throw new HoldfastError('usage', `"${text}" is not a format`, { remedy: 'Give raw or qcow2' });
}

function pointOf(text: string): Id<'point'> | 'latest' {
  if (text === 'latest' || isId('point', text)) return text;
  throw new HoldfastError('usage', `"${text}" is not a point`, {
    remedy: 'Give an id that `vault points` lists, or latest',
  });
}

async function restoreTo(
  to: string,
  format: FileTarget['format'],
  request: Omit<RestoreRequest, 'target'>,
  context: EngineContext,
  io: CommandIo,
): Promise<RestoreResult> {
  if (to === '-') return await runRestore({ ...request, target: { kind: 'stream', output: io.stdout } }, context);
  if (/^nbds?(\+unix)?:/.test(to))
    return await runRestore({ ...request, target: { kind: 'nbd', address: parseNbdUri(to) } }, context);
  return await restoreToFile(request, { path: resolve(to), format }, context);
}

function describe(to: string, { point, sizeBytes, stats }: RestoreResult): string {
  const done = [
    `${formatBytes(stats.writtenBytes)} written`,
    `${formatBytes(stats.zeroBytes)} zero`,
    stats.unchangedBytes > 0 ? `${formatBytes(stats.unchangedBytes)} the same` : '',
    stats.resumedBytes > 0 ? `${formatBytes(stats.resumedBytes)} from before` : '',
    `${formatBytes(stats.fetchedBytes)} fetched`,
  ];
  return `${point} → ${to}: ${formatBytes(sizeBytes)} (${done.filter((text) => text !== '').join(', ')}) in ${formatSeconds(stats.seconds)}, ${formatRate(sizeBytes / Math.max(stats.seconds, 0.001))}; every chunk checked`;
}
