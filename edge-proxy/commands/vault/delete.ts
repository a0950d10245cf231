import type { CommandIo } from '#contract/command.ts';
import { HoldfastError } from '#contract/errors.ts';
import { isId } from '#contract/ids.ts';
import { pointKey } from '#repository/point.ts';
import { listPoints } from '../../engine/list-points.ts';
import { listPointIds } from '../../engine/vault-reading.ts';
import { parseArguments } from '../arguments.ts';
import { openVault, VAULT_OPTIONS, VAULT_OPTIONS_HELP } from './open-vault.ts';
import { printResult } from './output.ts';

export const summary = 'Delete a point';
export const usage = `Usage: holdfast vault delete --repo DIR --key-file F --point ID [--json]

The point can no longer be restored. Space that no other point uses is not given back yet: this version
has no collector.

  --point ID              the point, as \`vault points\` lists it
${VAULT_OPTIONS_HELP}`;

export async function run(argv: string[], io: CommandIo): Promise<number> {
  const { values } = parseArguments(
    {
      command: 'vault delete',
      options: { ...VAULT_OPTIONS, point: { type: 'string' } },
      required: ['repo', 'key-file', 'point'],
    },
    argv,
  );
  const id = values.point!;
  if (!isId('point', id))
    throw new HoldfastError('usage', `"${id}" is not a point`, { remedy: 'Give an id that `vault points` lists' });
  const vault = await openVault(values, 'write');
  for await (const { id: listed, machine } of listPoints(vault)) {
    if (listed !== id) continue;
    const wasLatest = (await listPointIds(vault, machine)).at(-1) === id;
    await vault.blobs.delete(pointKey(machine, id));
    // A list of changes since this point says nothing of the changes between it and the one before.
    const warning = 'It was the machine’s latest: the next backup must be made without --changed.';
    printResult(io, values.json, { deleted: id, machine, wasLatest, ...(wasLatest && { warning }) }, [
      `Point ${id} is deleted.`,
      ...(wasLatest ? [warning] : []),
    ]);
    return 0;
  }
  throw new HoldfastError('not-found', `The vault has no point ${id}`, {
    remedy: 'List the points with: vault points',
  });
}
