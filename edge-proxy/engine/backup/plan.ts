import { join } from 'node:path';
import type { Id } from '#contract/ids.ts';
import { listLeaves, segmentsOf } from '#repository/image.ts';
import { decodeLeaf } from '#repository/leaf.ts';
import { PAGE_BYTES } from '#repository/parameters.ts';
import type { Point } from '#repository/point.ts';
import type { BackupDisk } from '../request.ts';
import type { VaultReading } from '../vault-reading.ts';
import { DiskState } from './disk-state.ts';
import { countPages, intersect, segmentsTouched, toPageRanges } from './extents.ts';
import { type DiskPlan, LeafTable } from './unit.ts';

/** What will be done with one disk. */
export interface PlannedDisk {
  readonly disk: BackupDisk;
  readonly plan: DiskPlan;
  readonly state: DiskState;
  /** Segments to work on, ascending. */
  readonly segments: readonly number[];
  /** Leaves of the new image; as the parent's until a segment is done. */
  readonly table: LeafTable;
  /** Why it is read the way it is, for people. */
  readonly why: string;
  readonly toReadBytes: number;
}

const shared = (bytes: number) => new SharedArrayBuffer(bytes);

/** Decides for each disk what must be read: extents ∩ changes, or everything where changes are not known for sure. */
export async function planDisk(
  disk: BackupDisk,
  index: number,
  machine: Id<'machine'>,
  parent: Point | undefined,
  folder: string,
  reading: VaultReading,
): Promise<PlannedDisk> {
  const { sizeBytes } = disk;
  const image = parent?.facts.disks[index];
  // What the vault has lost must not be built upon: the new point would be lost with it.
  const isThere = !image?.root || reading.known.has(Buffer.from(image.root, 'hex'));
  const sameSize = image !== undefined && image.sizeBytes === sizeBytes && isThere;
  const { state, known } = await DiskState.open(
    join(folder, 'disks', `${machine}-${index}`),
    sameSize ? image.root : undefined,
    sizeBytes,
  );
  const allocated = toPageRanges(disk.allocated ?? [{ offset: 0, length: sizeBytes }], sizeBytes, shared);
  const forced = toPageRanges(disk.forced ?? [], sizeBytes, shared);
  const base = { locator: disk.locator, sizeBytes, allocated, forced };
  const none = toPageRanges([], 0, shared);

  if (disk.changed !== undefined && sameSize) {
    const changed = toPageRanges([...disk.changed, ...(disk.forced ?? [])], sizeBytes, shared);
    const segments = segmentsTouched(changed);
    const parentTable = known?.table ?? (await tableFromVault(image.root, sizeBytes, reading));
    await learnFacts(parentTable, segments, reading);
    const plan: DiskPlan = {
      ...base,
      mode: 'changes',
      changed,
      parent: parentTable.memory,
      ...(known && { fingerprints: { path: known.fingerprintsPath, sums: known.sums } }),
    };
    const toReadBytes = countPages(intersect(changed, allocated, shared)) * PAGE_BYTES;
    return {
      disk,
      plan,
      state,
      segments,
      table: copyOf(parentTable),
      why: 'the source tells what changed',
      toReadBytes,
    };
  }

  const toReadBytes = countPages(allocated) * PAGE_BYTES;
  const segments = segmentsTouched(allocated);
  if (known) {
    const plan: DiskPlan = {
      ...base,
      mode: 'compare',
      changed: none,
      parent: known.table.memory,
      fingerprints: { path: known.fingerprintsPath, sums: known.sums },
    };
    const table = copyOf(known.table);
    const touched = new Set(segments);
    for (let segment = 0; segment < table.segments; segment++) if (!touched.has(segment)) table.setZero(segment); // no longer allocated
    return {
      disk,
      plan,
      state,
      segments,
      table,
      why: 'everything is read and compared with page fingerprints',
      toReadBytes,
    };
  }
  const table = LeafTable.allocate(segmentsOf(sizeBytes));
  for (let segment = 0; segment < table.segments; segment++) table.setZero(segment);
  return {
    disk,
    plan: { ...base, mode: 'whole', changed: none },
    state,
    segments,
    table,
    why: isThere ? whyWhole(parent, image !== undefined, sameSize) : 'the vault has lost the earlier point’s maps',
    toReadBytes,
  };
}

function whyWhole(parent: Point | undefined, hasImage: boolean, sameSize: boolean): string {
  if (parent === undefined) return 'the machine has no earlier point';
  if (!hasImage) return 'the disk is not in the earlier point';
  if (!sameSize) return 'the disk’s size changed';
  return 'the page fingerprints of the earlier point are not on this proxy';
}

function copyOf(table: LeafTable): LeafTable {
  const memory = new SharedArrayBuffer(table.memory.byteLength);
  Buffer.from(memory).set(table.bytes);
  return new LeafTable(memory);
}

/** The parent's leaf table from its image tree; of the leaves, only ids. */
async function tableFromVault(root: string | null, sizeBytes: number, { reader }: VaultReading): Promise<LeafTable> {
  const table = LeafTable.allocate(segmentsOf(sizeBytes));
  for (let segment = 0; segment < table.segments; segment++) table.setZero(segment);
  const image = { root: root === null ? null : Buffer.from(root, 'hex'), sizeBytes };
  for await (const { segment, id } of listLeaves(image, (node) => reader.read(node))) table.setLeaf(segment, id, null);
  return table;
}

/** Reads the leaves whose facts a table lacks, of the segments that will be worked on. */
async function learnFacts(table: LeafTable, segments: readonly number[], { reader }: VaultReading): Promise<void> {
  for (const segment of segments) {
    const entry = table.get(segment);
    if (entry.kind !== 'leaf' || entry.facts !== null) continue;
    const id = Buffer.from(entry.id);
    table.setLeaf(segment, id, decodeLeaf(await reader.read(id)));
  }
}
