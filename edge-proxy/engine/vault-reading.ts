import { join } from 'node:path';
import { HoldfastError } from '#contract/errors.ts';
import { type Id, isId } from '#contract/ids.ts';
import { ChunkNamer } from '#repository/chunk.ts';
import { PackReader } from '#repository/pack-reader.ts';
import { decodePoint, type Point, pointKey } from '#repository/point.ts';
import { Sealer } from '#repository/seal.ts';
import type { Generation, SegmentRef } from '#repository/state.ts';
import { syncIndexCopies } from './index-copies.ts';
import { type IndexCopy, KnownChunks } from './known-chunks.ts';
import type { EngineContext, OpenVault } from './request.ts';

/** A vault opened for reading at one generation: its index copies and a reader of single chunks. */
export interface VaultReading {
  readonly copies: readonly IndexCopy[];
  readonly known: KnownChunks;
  readonly reader: PackReader;
  /** Index segments that cannot be used; what only they knew is missing. Always empty unless asked for. */
  readonly lostIndex: readonly HoldfastError[];
}

/** The folder of a vault's caches and journals on this proxy. */
export function vaultFolder(context: EngineContext, vault: OpenVault): string {
  return join(context.cacheDir, vault.id);
}

/**
 * Fetches what is new of the index and makes chunks readable. The caller disposes `known`.
 * A lost part of the index is thrown, or with `tolerant` left out: a restore may not need it.
 */
export async function openReading(
  vault: OpenVault,
  generation: Generation,
  context: EngineContext,
  tolerant = false,
): Promise<VaultReading> {
  const folder = join(vaultFolder(context, vault), 'index');
  const lostIndex: HoldfastError[] = [];
  const onLost = tolerant ? (_: SegmentRef, error: HoldfastError) => void lostIndex.push(error) : undefined;
  const copies = await syncIndexCopies(folder, generation, vault.blobs, context, onLost);
  const known = new KnownChunks(copies);
  const sealer = new Sealer(vault.keys, context.random);
  const reader = new PackReader(vault.blobs, sealer, new ChunkNamer(vault.keys.idKey), (id) => known.locations(id));
  return { copies, known, reader, lostIndex };
}

/** Ids of a machine's points, oldest first. */
export async function listPointIds(vault: OpenVault, machine: Id<'machine'>): Promise<Id<'point'>[]> {
  await vault.state.generation(); // points that are committed, but not written yet, are written now
  const ids: Id<'point'>[] = [];
  let cursor: string | undefined;
  do {
    const page = await vault.blobs.list(`points/${machine}/`, cursor);
    for (const { key } of page.blobs) {
      const id = key.slice(key.lastIndexOf('/') + 1);
      if (isId('point', id)) ids.push(id);
    }
    cursor = page.next;
  } while (cursor !== undefined);
  return ids.sort();
}

/** Reads a point; throws `not-found` if there is none of that name, `damaged` naming it. */
export async function readPoint(
  vault: OpenVault,
  machine: Id<'machine'>,
  wanted: Id<'point'> | 'latest',
): Promise<Point> {
  const id = wanted === 'latest' ? (await listPointIds(vault, machine)).at(-1) : wanted;
  const found = id && (await vault.blobs.get(pointKey(machine, id)));
  if (id === undefined || !found) {
    throw new HoldfastError(
      'not-found',
      id === undefined ? 'The machine has no points yet' : `The machine has no point ${id}`,
      {
        remedy: 'List the points with: vault points',
      },
    );
  }
  try {
    const point = decodePoint(found.content, vault.keys);
    // Signed points are all genuine: only the name inside tells that this is the one that was asked for.
    if (point.facts.point !== id || point.facts.machine !== machine)
      throw new HoldfastError('damaged', `its object holds another point, ${point.facts.point}`);
    return point;
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    throw new HoldfastError(error.code, `Point ${id}: ${error.message}`, {
      cause: error,
      data: { point: id },
      remedy: 'Restore another point of this machine',
    });
  }
}
