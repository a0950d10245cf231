import { open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Id, makeId } from '#contract/ids.ts';
import { runBackup } from '#edge/engine/backup/backup.ts';
import { runRestore } from '#edge/engine/restore/restore.ts';
import { openReading, readPoint } from '#edge/engine/vault-reading.ts';
import { PointDisk } from '#edge/recovery/point-disk.ts';
import type { Extent } from '#edge/sources/disk.ts';
import { SeededRandom } from '../random.ts';
import { makeTestVault } from '../test-vault.ts';

const PAGE = 4096;
const SEGMENT = 4096 * PAGE;

/** Disk sizes that break things: nothing, a byte, around a page, around segments, and whatever. */
function randomSize(random: SeededRandom): number {
  const special = [
    1,
    2,
    511,
    PAGE - 1,
    PAGE,
    PAGE + 1,
    16 * PAGE,
    129 * PAGE + 7,
    SEGMENT - 1,
    SEGMENT,
    SEGMENT + 1,
    2 * SEGMENT + 5 * PAGE + 3,
  ];
  return random.fraction() < 0.4 ? random.pick(special) : 1 + random.below(random.pick([1, 10, 60]) * 65_536);
}

/** A stretch of content: zeros, noise, text, one repeated page, or what lies elsewhere on the disk. */
function paint(random: SeededRandom, disk: Buffer, offset: number, length: number): void {
  const part = disk.subarray(offset, offset + length);
  switch (random.below(5)) {
    case 0:
      part.fill(0);
      break;
    case 1:
      random.fill(part);
      break;
    case 2:
      part.fill(`row ${random.word()} of a table; `);
      break;
    case 3:
      part.fill(random.fill(Buffer.alloc(Math.min(PAGE, Math.max(1, length)))));
      break;
    default:
      Buffer.from(disk.subarray(random.below(disk.length))).copy(part);
  }
}

function randomDisk(random: SeededRandom): Buffer {
  const disk = Buffer.alloc(randomSize(random));
  const style = random.below(6);
  if (style === 0) return disk; // all zero
  if (style === 1) return random.fill(disk);
  for (let i = 1 + random.below(12); i > 0; i--) {
    const offset = random.below(disk.length);
    paint(
      random,
      disk,
      offset,
      1 + random.below(Math.min(disk.length - offset, random.pick([PAGE, 40 * PAGE, SEGMENT]))),
    );
  }
  return disk;
}

/** Changes the disk and answers where; some extents name what did not change, none leaves out what did. */
function change(random: SeededRandom, disk: Buffer): Extent[] {
  const extents: Extent[] = [];
  for (let i = random.below(random.pick([1, 4, 40])); i > 0; i--) {
    const offset = random.below(disk.length);
    const length =
      1 + random.below(Math.min(disk.length - offset, random.pick([1, 700, PAGE, 20 * PAGE, 3000 * PAGE])));
    if (random.fraction() < 0.9) paint(random, disk, offset, length);
    extents.push({ offset, length });
  }
  return extents;
}

export interface CampaignResult {
  readonly disks: number;
  readonly generations: number;
  /** Generations restored to a file, and read in place. */
  readonly restores: number;
  readonly reads: number;
  readonly failures: readonly string[];
}

/**
 * Backs up machines of many random disks through five generations, by change list, and compares every
 * generation of every disk. Everything follows from the seed.
 */
export async function randomDisks(options: {
  readonly disks: number;
  readonly disksAMachine: number;
  readonly seed: number;
  /** Restore every generation to a file. */
  readonly restoreAll?: boolean;
  readonly onMachine?: (done: number) => void;
}): Promise<CampaignResult> {
  const random = new SeededRandom(options.seed);
  const failures: string[] = [];
  let disksDone = 0;
  let restores = 0;
  let reads = 0;
  const generations = 5;
  for (let machineNumber = 0; disksDone < options.disks; machineNumber++) {
    await using test = await makeTestVault({ workers: 1 + random.below(2) });
    const { vault, context, folder } = test;
    const machine = { id: makeId('machine', machineNumber, random.bytes(10)), name: `m${machineNumber}` };
    const disks = Array.from({ length: Math.min(options.disksAMachine, options.disks - disksDone) }, () =>
      randomDisk(random),
    );
    const history: Buffer[][] = [];
    const points: Id<'point'>[] = [];
    for (let generation = 0; generation < generations; generation++) {
      const changed = generation === 0 ? undefined : disks.map((disk) => change(random, disk));
      history.push(disks.map((disk) => Buffer.from(disk)));
      for (const [i, disk] of disks.entries()) await writeSparse(join(folder, `${i}.img`), disk);
      // A proxy that lost its caches must do as well as one that has them.
      if (random.fraction() < 0.2) await rm(context.cacheDir, { recursive: true, force: true });
      const result = await runBackup(
        {
          vault,
          machine,
          disks: disks.map((disk, i) => ({
            name: `${i}`,
            locator: { kind: 'file', path: join(folder, `${i}.img`) },
            sizeBytes: disk.length,
            ...(changed && random.fraction() < 0.9 ? { changed: changed[i]! } : {}),
          })),
        },
        context,
      );
      points.push(result.point);
    }
    // One generation of each disk is restored by workers to a file; the others are read as `vault serve` does.
    const reading = await openReading(vault, await vault.state.generation(), context);
    using _known = reading.known;
    for (const diskIndex of disks.keys()) {
      const restored = options.restoreAll ? undefined : random.below(generations);
      for (const [generation, point] of points.entries()) {
        const expected = history[generation]![diskIndex]!;
        let found: Buffer;
        if (restored === undefined || restored === generation) {
          const path = join(folder, 'restored.img');
          await runRestore({ vault, machine: machine.id, point, diskIndex, target: { kind: 'file', path } }, context);
          found = await readFile(path);
          restores++;
        } else {
          found = Buffer.alloc(expected.length);
          const { facts } = await readPoint(vault, machine.id, point);
          const { root, sizeBytes } = facts.disks[diskIndex]!;
          const image = { root: root === null ? null : Buffer.from(root, 'hex'), sizeBytes };
          if (sizeBytes === found.length) await new PointDisk(image, reading.reader).read(0, found);
          reads++;
        }
        if (!found.equals(expected))
          failures.push(
            `seed ${options.seed}, machine ${machineNumber}, disk ${diskIndex} of ${expected.length} bytes, generation ${generation}`,
          );
      }
    }
    disksDone += disks.length;
    options.onMachine?.(disksDone);
  }
  return { disks: disksDone, generations, restores, reads, failures };
}

/** Writes a disk with holes where whole pages are zero. */
async function writeSparse(path: string, disk: Buffer): Promise<void> {
  const file = await open(path, 'w');
  try {
    await file.truncate(disk.length);
    const zero = Buffer.alloc(PAGE);
    for (let at = 0; at < disk.length; ) {
      const isZero = (offset: number) =>
        disk.compare(zero, 0, Math.min(PAGE, disk.length - offset), offset, Math.min(offset + PAGE, disk.length)) === 0;
      let end = at;
      while (end < disk.length && !isZero(end)) end += PAGE;
      if (end > at) await file.write(disk, at, Math.min(end, disk.length) - at, at);
      at = end === at ? at + PAGE : end;
    }
  } finally {
    await file.close();
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { disks: { type: 'string', default: '2000' }, seed: { type: 'string', default: '1' } },
  });
  const started = performance.now();
  const result = await randomDisks({
    disks: Number(values.disks),
    disksAMachine: 50,
    seed: Number(values.seed),
    onMachine: (done) => console.error(`${done} disks, ${Math.round((performance.now() - started) / 1000)} s`),
  });
  console.log(JSON.stringify({ ...result, seconds: Math.round((performance.now() - started) / 1000) }));
  process.exitCode = result.failures.length === 0 ? 0 : 1;
}
