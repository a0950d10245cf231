import { HoldfastError } from '#contract/errors.ts';
import { type Id, isId } from '#contract/ids.ts';
import { decodePoint, type Point } from '#repository/point.ts';
import type { OpenVault } from './request.ts';

/** A point of the vault, or what is wrong with it. */
export type ListedPoint =
  | { readonly id: Id<'point'>; readonly machine: Id<'machine'>; readonly point: Point }
  | { readonly id: Id<'point'>; readonly machine: Id<'machine'>; readonly damage: HoldfastError };

/** All points of a vault, or of one machine, machine by machine, oldest first. Damaged ones are listed as such. */
export async function* listPoints(vault: OpenVault, machine?: Id<'machine'>): AsyncGenerator<ListedPoint> {
  await vault.state.generation(); // points that are committed, but not written yet, are written now
  let cursor: string | undefined;
  do {
    const page = await vault.blobs.list(machine === undefined ? 'points/' : `points/${machine}/`, cursor);
    for (const { key } of page.blobs) {
      const [, owner = '', id = ''] = key.split('/');
      if (isId('machine', owner) && isId('point', id)) yield await readListed(vault, key, owner, id);
    }
    cursor = page.next;
  } while (cursor !== undefined);
}

async function readListed(
  vault: OpenVault,
  key: string,
  machine: Id<'machine'>,
  id: Id<'point'>,
): Promise<ListedPoint> {
  try {
    const found = await vault.blobs.get(key);
    if (found === undefined) throw new HoldfastError('missing', `Point ${id} was deleted while the vault was listed`);
    const point = decodePoint(found.content, vault.keys);
    if (point.facts.point !== id || point.facts.machine !== machine)
      throw new HoldfastError('damaged', `The object ${key} holds another point, ${point.facts.point}`);
    return { id, machine, point };
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    return { id, machine, damage: error };
  }
}
