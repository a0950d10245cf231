import { HoldfastError, reportOf } from '#contract/errors.ts';
import { checkStateObject } from '#repository/blob-state.ts';
import { decodeInner, type Image, segmentsOf, treeHeight } from '#repository/image.ts';
import { decodeLeaf } from '#repository/leaf.ts';
import { packKey, STATE_KEY } from '#repository/names.ts';
import { checkPackHeader, PACK_HEADER_BYTES } from '#repository/pack.ts';
import { NODE_FANOUT, SEGMENT_BYTES } from '#repository/parameters.ts';
import { type ListedPoint, listPoints } from '../list-points.ts';
import { isLoss } from '../loss.ts';
import type { EngineContext, LostRange, OpenVault } from '../request.ts';
import { openReading, type VaultReading } from '../vault-reading.ts';
import { checkDisk } from './restore.ts';

/** What a verification found. */
export interface VerifyResult {
  readonly points: number;
  readonly disks: number;
  readonly packs: number;
  readonly nodes: number;
  readonly readBytes: number;
  readonly lost: readonly LostRange[];
  readonly damagedPoints: readonly { readonly point: string; readonly message: string }[];
  /** Objects that are damaged or gone, whether or not a point needs them: packs, parts of the index. */
  readonly damagedObjects: readonly { readonly key: string; readonly message: string }[];
}

/** True if every point can be restored and every object is what it must be. */
export function isSound(result: VerifyResult): boolean {
  return result.lost.length === 0 && result.damagedPoints.length === 0 && result.damagedObjects.length === 0;
}

/** Packs asked for at once. */
const HEADS_AT_ONCE = 16;
const LOST_MAX = 1000;

/**
 * Checks a vault. Always: every point's signature, every node of every image, the footer and size of
 * every pack, and that each chunk a map names lies in one of them. With `readData`: every chunk is read,
 * opened and compared with its id, just as a restore would do. Nodes that points share are read once.
 */
export async function verifyVault(vault: OpenVault, context: EngineContext, readData: boolean): Promise<VerifyResult> {
  // In this order: an index read before a point was committed would not know the point's chunks.
  const points: ListedPoint[] = [];
  for await (const listed of listPoints(vault)) points.push(listed);
  const reading = await openReading(vault, await vault.state.generation(), context, true);
  using _known = reading.known;
  const lost: LostRange[] = [];
  const damagedPoints: { point: string; message: string }[] = [];
  const badPacks = await checkPacks(vault, reading, context);
  const seen = new Set<string>();
  let disks = 0;
  let readBytes = 0;
  for (const listed of points) {
    context.signal?.throwIfAborted();
    if ('damage' in listed) {
      damagedPoints.push({ point: listed.id, message: listed.damage.message });
      continue;
    }
    for (const [diskIndex, disk] of listed.point.facts.disks.entries()) {
      disks++;
      const image = { root: disk.root === null ? null : Buffer.from(disk.root, 'hex'), sizeBytes: disk.sizeBytes };
      const report = (offset: number, length: number, error: unknown) => {
        if (lost.length < LOST_MAX) lost.push({ point: listed.id, diskIndex, offset, length, cause: reportOf(error) });
      };
      const before = lost.length;
      await checkImage(image, reading, badPacks.missing, seen, report);
      if (!readData || lost.length > before) continue;
      try {
        const { stats } = await checkDisk({ vault, machine: listed.machine, point: listed.id, diskIndex }, context);
        readBytes += stats.fetchedBytes;
      } catch (error) {
        if (!isLoss(error)) throw error;
        const { offset, length } = error.data as { readonly offset?: number; readonly length?: number };
        report(offset ?? 0, length ?? image.sizeBytes, error);
      }
    }
  }
  const damagedObjects = [
    ...(await checkState(vault)),
    ...reading.lostIndex.map((error) => ({ key: String(error.data.key), message: error.message })),
    ...[...badPacks.missing].map(([key, error]) => ({ key, message: reportOf(error).message })),
  ].slice(0, LOST_MAX);
  return {
    points: points.length,
    disks,
    packs: badPacks.checked,
    nodes: seen.size,
    readBytes,
    lost,
    damagedPoints,
    damagedObjects,
  };
}

/** A damaged state hinders no restore, but the next backup. A vault of a control plane has none. */
async function checkState(vault: OpenVault): Promise<{ key: string; message: string }[]> {
  const found = await vault.blobs.get(STATE_KEY);
  try {
    if (found) checkStateObject(found.content);
    return [];
  } catch (error) {
    return [{ key: STATE_KEY, message: reportOf(error).message }];
  }
}

/** Looks at every pack that the index names: is it there, with the right size and a sound footer? */
async function checkPacks(
  vault: OpenVault,
  { known, reader }: VaultReading,
  context: EngineContext,
): Promise<{ readonly checked: number; readonly missing: ReadonlyMap<string, unknown> }> {
  const missing = new Map<string, unknown>();
  let checked = 0;
  const packs = [...known.packs()];
  for (let at = 0; at < packs.length; at += HEADS_AT_ONCE) {
    context.signal?.throwIfAborted();
    await Promise.all(
      packs.slice(at, at + HEADS_AT_ONCE).map(async (pack) => {
        const key = packKey(pack.id);
        checked++;
        try {
          const head = await vault.blobs.head(key);
          if (head === undefined) throw new HoldfastError('missing', `${key} is gone`, { data: { key } });
          if (head.sizeBytes !== pack.sizeBytes)
            throw new HoldfastError('damaged', `${key} has ${head.sizeBytes} bytes instead of ${pack.sizeBytes}`, {
              data: { key },
            });
          checkPackHeader(await vault.blobs.getRange(key, 0, PACK_HEADER_BYTES));
          await reader.slots(pack);
        } catch (error) {
          if (!isLoss(error)) throw error;
          missing.set(key, error);
        }
      }),
    );
  }
  return { checked, missing };
}

type Report = (offset: number, length: number, error: unknown) => void;

/** Walks an image; what was found sound before, in this image or another, is not walked again. */
async function checkImage(
  image: Image,
  reading: VaultReading,
  badPacks: ReadonlyMap<string, unknown>,
  seen: Set<string>,
  report: Report,
): Promise<void> {
  if (image.root === null) return;
  const { reader } = reading;
  const rangeOf = (segment: number, segments: number): [number, number] => {
    const offset = segment * SEGMENT_BYTES;
    return [offset, Math.min(segments * SEGMENT_BYTES, image.sizeBytes - offset)];
  };
  /** @returns whether the node and all below it are sound */
  const walk = async (id: Buffer, level: number, segment: number): Promise<boolean> => {
    const name = `${level}:${id.toString('latin1')}`;
    if (seen.has(name)) return true;
    let sound = true;
    const fail = (error: unknown): boolean => {
      if (!isLoss(error)) throw error;
      report(...rangeOf(segment, NODE_FANOUT ** level), error);
      return false;
    };
    try {
      if (level > 0) {
        const reach = NODE_FANOUT ** (level - 1);
        for (const [i, child] of decodeInner(await reader.read(id), level).entries()) {
          if (child && !(await walk(child, level - 1, segment + i * reach))) sound = false;
        }
      } else {
        const leaf = decodeLeaf(await reader.read(id));
        if (leaf.type === 'delta' && !(await walk(leaf.base, 0, segment))) sound = false;
        for (const { chunk } of leaf.runs) {
          if (chunk === null) continue;
          const { pack } = await reader.find(chunk);
          const bad = badPacks.get(packKey(pack.id));
          if (bad) throw bad;
        }
      }
    } catch (error) {
      sound = fail(error);
    }
    if (sound) seen.add(name);
    return sound;
  };
  await walk(image.root, treeHeight(segmentsOf(image.sizeBytes)), 0);
}
