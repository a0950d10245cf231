import { HoldfastError } from '#contract/errors.ts';
import { type Id, isId } from '#contract/ids.ts';
import { machineIdOf } from '#repository/machine-id.ts';
import { listPoints } from '../../engine/list-points.ts';
import type { OpenVault } from '../../engine/request.ts';

/**
 * The machine that is meant by an id or a name. The `vault` commands make a machine's id from its name; a control
 * plane gives it one of its own, so there the name is looked up in the points. Throws `usage` if two machines have it.
 */
export async function findMachine(vault: OpenVault, nameOrId: string): Promise<Id<'machine'>> {
  if (isId('machine', nameOrId)) return nameOrId;
  const own = machineIdOf(vault.keys, nameOrId);
  const found = new Set<Id<'machine'>>();
  for await (const listed of listPoints(vault)) {
    if (listed.machine === own) return own;
    if ('point' in listed && listed.point.secrets.machineName === nameOrId) found.add(listed.machine);
  }
  if (found.size > 1) {
    throw new HoldfastError('usage', `${found.size} machines are called ${nameOrId}: ${[...found].join(', ')}`, {
      remedy: 'Give the id of the one you mean',
    });
  }
  return [...found][0] ?? own; // of a machine without points it will be said that it has none
}
