import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Id, makeId } from '#contract/ids.ts';
import { runBackup } from '#edge/engine/backup/backup.ts';
import { runRestore } from '#edge/engine/restore/restore.ts';
import type { Extent } from '#edge/sources/disk.ts';
import { SeededRandom } from '../random.ts';
import { makeTestVault, type TestVault } from '../test-vault.ts';
import { DamagedBlobs } from './damaged-blobs.ts';

const PAGE = 4096;

/** One disk of one point, and what it held. */
export interface KnownDisk {
  readonly machine: Id<'machine'>;
  readonly point: Id<'point'>;
  readonly diskIndex: number;
  readonly content: Buffer;
}

/** A vault of two machines and seven disks in all points, with patches, deltas, zero runs and shared chunks. */
export interface SmallVault extends AsyncDisposable {
  readonly test: TestVault;
  readonly blobs: DamagedBlobs;
  readonly random: SeededRandom;
  readonly disks: readonly KnownDisk[];
  /** Every object of the vault. */
  readonly objects: ReadonlyMap<string, Buffer>;
  /** The objects that the restore of each of `disks` asks for. */
  readonly needs: readonly ReadonlySet<string>[];
}

/** Builds it; the same seed gives the same disks (but other keys, and so other objects). */
export async function makeSmallVault(seed: number): Promise<SmallVault> {
  const random = new SeededRandom(seed);
  let blobs: DamagedBlobs | undefined;
  const test = await makeTestVault({ wrap: (inner) => (blobs = new DamagedBlobs(inner)) });
  const { vault, context, folder } = test;
  const disks: KnownDisk[] = [];
  const first = [makeDisk(random, 17 * 1024 * 1024 + 700), makeDisk(random, 300 * PAGE)];
  const second = [Buffer.from(first[1]!)]; // a sibling: shares chunks with another machine's disk
  for (const [number, contents] of [first, second].entries()) {
    const machine = { id: makeId('machine', number, random.bytes(10)), name: `machine ${number}` };
    for (let generation = 0; generation < (number === 0 ? 3 : 2); generation++) {
      const changed = generation === 0 ? undefined : contents.map((disk) => change(random, disk));
      for (const [i, disk] of contents.entries()) await writeFile(join(folder, `${i}.img`), disk);
      const { point } = await runBackup(
        {
          vault,
          machine,
          disks: contents.map((disk, i) => ({
            name: `disk ${i}`,
            locator: { kind: 'file', path: join(folder, `${i}.img`) },
            sizeBytes: disk.length,
            ...(changed && generation === 1 ? { changed: changed[i]! } : {}),
          })),
        },
        context,
      );
      for (const [diskIndex, disk] of contents.entries())
        disks.push({ machine: machine.id, point, diskIndex, content: Buffer.from(disk) });
    }
  }
  const small = { test, blobs: blobs!, random, disks, objects: await readAll(blobs!) };
  const needs: Set<string>[] = [];
  for (const disk of disks) {
    blobs!.touched.clear();
    await restore(small, disk, join(folder, 'fresh'));
    needs.push(new Set(blobs!.touched));
  }
  return { ...small, needs, [Symbol.asyncDispose]: () => test[Symbol.asyncDispose]() };
}

let restores = 0;

/** Restores a disk with an empty cache and answers what was written; throws what the restore throws. */
export async function restore(
  { test }: Pick<SmallVault, 'test'>,
  { machine, point, diskIndex }: KnownDisk,
  cacheDir?: string,
): Promise<Buffer> {
  const path = join(test.folder, `restored-${restores++}.img`);
  const cache = cacheDir ?? join(test.folder, `cache-${restores}`);
  await mkdir(cache, { recursive: true });
  try {
    const request = { vault: test.vault, machine, point, diskIndex, target: { kind: 'file', path } as const };
    await runRestore(request, { ...test.context, cacheDir: cache });
    return await readFile(path);
  } finally {
    await rm(path, { force: true });
    await rm(cache, { recursive: true, force: true });
  }
}

async function readAll(blobs: DamagedBlobs): Promise<Map<string, Buffer>> {
  const objects = new Map<string, Buffer>();
  const { blobs: listed } = await blobs.list('');
  for (const { key } of listed) objects.set(key, Buffer.from((await blobs.get(key))!.content));
  return objects;
}

/** Noise, text, repeated pages and zeros, so that each way to store a page is there. */
function makeDisk(random: SeededRandom, sizeBytes: number): Buffer {
  const disk = Buffer.alloc(sizeBytes);
  random.fill(disk.subarray(0, 40 * PAGE));
  disk.fill('a line of a log; ', 50 * PAGE, 120 * PAGE);
  random.fill(disk.subarray(sizeBytes - 30 * PAGE));
  random.fill(disk.subarray(140 * PAGE, 180 * PAGE));
  disk.copy(disk, 200 * PAGE, 140 * PAGE, 180 * PAGE);
  return disk;
}

/** Changes a few pages, here and there; answers where. */
export function change(random: SeededRandom, disk: Buffer): Extent[] {
  return Array.from({ length: 4 }, () => {
    const offset = random.below(Math.min(disk.length, 260 * PAGE));
    const length = Math.min(disk.length - offset, 1 + random.below(3 * PAGE));
    random.fill(disk.subarray(offset, offset + length));
    return { offset, length };
  });
}
