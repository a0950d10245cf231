import type { CommandIo } from '#contract/command.ts';
import { formatBytes } from '#contract/quantity.ts';
import { isSound, verifyVault } from '../../engine/restore/verify.ts';
import { parseArguments } from '../arguments.ts';
import { engineContext, openVault, VAULT_OPTIONS, VAULT_OPTIONS_HELP } from './open-vault.ts';
import { printResult } from './output.ts';

export const summary = 'Check that every point can be restored';
export const usage = `Usage: holdfast vault verify --repo DIR --key-file F [--read-data] [--json]

Checks every point, map, pack and footer, and that every chunk is where it must be. Ends with 1 and names
the points, disks and bytes that are lost if anything is.

  --read-data             also read, open and check every chunk, as a restore does
${VAULT_OPTIONS_HELP}`;

export async function run(argv: string[], io: CommandIo): Promise<number> {
  const { values } = parseArguments(
    {
      command: 'vault verify',
      options: { ...VAULT_OPTIONS, 'read-data': { type: 'boolean' } },
      required: ['repo', 'key-file'],
    },
    argv,
  );
  const vault = await openVault(values, 'read');
  const { context, done } = engineContext(values, io, 'verify');
  const result = await verifyVault(vault, context, values['read-data'] ?? false).finally(done);
  const sound = isSound(result);
  printResult(io, values.json, { sound, ...result }, [
    `${result.points} point(s), ${result.disks} disk(s), ${result.packs} pack(s), ${result.nodes} map node(s) checked${result.readBytes > 0 ? `, ${formatBytes(result.readBytes)} of chunks read` : ''}`,
    ...result.damagedObjects.map(({ key, message }) => `DAMAGED: ${key}: ${message}`),
    ...result.damagedPoints.map(({ point, message }) => `LOST: point ${point}: ${message}`),
    ...result.lost.map(
      ({ point, diskIndex, offset, length, cause }) =>
        `LOST: point ${point}, disk ${diskIndex}, bytes ${offset} to ${offset + length - 1}: ${cause.message}`,
    ),
    sound ? 'All is sound.' : 'The rest of the vault is sound.',
  ]);
  return sound ? 0 : 1;
}
