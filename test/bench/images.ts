import { spawnSync } from 'node:child_process';
import { mkdir, open, readFile, rename, rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { formatBytes } from '#contract/quantity.ts';
import type { Extent } from '#edge/sources/disk.ts';
import { chance, fillRows } from '#local/demo/chance.ts';
import { type BuiltDisk, buildDisk, buildSibling } from '#local/demo/disk.ts';
import { oltpChanges, scatterChanges } from '#local/demo/scatter.ts';

export interface Images {
  readonly sizeBytes: number;
  readonly base: BuiltDisk;
  /** Paths of the disks, by name; see {@link IMAGE_NAMES}. */
  readonly path: (name: ImageName) => string;
  /** The change list that leads from `base` (or `huge`) to this image, as a file for `--changed`, and its bytes. */
  readonly changes: (name: ImageName) => { readonly file: string; readonly bytes: number };
}

/**
 * base: real files. day: 2 % of its blocks changed in scattered runs. oltp: a day of a busy database.
 * sibling: a second machine. huge: 1 TiB, nearly all holes. hugeDay: a little of it changed.
 */
export type ImageName = 'base' | 'day' | 'oltp' | 'sibling' | 'huge' | 'hugeDay';

const SEED = 'bench 2';
const HUGE_BYTES = 2 ** 40;
const HUGE_SHARE_OF_BASE = 1 / 8;

interface Plan {
  readonly version: 4;
  readonly sizeBytes: number;
}

/** Builds all disks in `dir`, or takes those that an earlier run with the same size left there. */
export async function makeImages(
  dir: string,
  sizeBytes: number,
  signal: AbortSignal,
  say: (text: string) => void,
): Promise<Images> {
  const plan: Plan = { version: 4, sizeBytes };
  const planFile = join(dir, 'images.json');
  const path = (name: ImageName) => join(dir, `${name}.img`);
  const known = await readFile(planFile, 'utf8').then(
    (text) => JSON.parse(text) as { plan: Plan; base: BuiltDisk; bytes: Record<string, number> },
    () => undefined,
  );
  const images = (base: BuiltDisk, bytes: Readonly<Record<string, number>>): Images => ({
    sizeBytes,
    base,
    path,
    changes: (name) => ({ file: join(dir, `${name}.json`), bytes: bytes[name] ?? 0 }),
  });
  if (known !== undefined && JSON.stringify(known.plan) === JSON.stringify(plan))
    return images(known.base, known.bytes);

  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { recursive: true });
  await demandSpace(dir, sizeBytes * 0.73 * 4);
  say(`building a disk of ${formatBytes(sizeBytes)} and its variants`);
  const disk = { path: path('base'), sizeBytes, seed: SEED, signal };
  const base = await buildDisk(disk);
  const bytes: Record<string, number> = {};
  const variant = async (name: ImageName, from: ImageName, change: (path: string) => Promise<Extent[]>) => {
    say(`building ${name}`);
    sparseCopy(path(from), path(name));
    const extents = await change(path(name));
    bytes[name] = extents.reduce((sum, { length }) => sum + length, 0);
    await writeFile(join(dir, `${name}.json`), JSON.stringify({ disks: [extents] }));
  };
  const small = { signal, share: 0.02 };
  // The OLTP day of the goals is 16 MB on 8 GiB; on smaller test disks it shrinks along.
  const dirtyBytes = Math.min(16e6, sizeBytes / 512);
  await variant('day', 'base', (file) => scatterChanges({ ...small, path: file, seed: 'day' }));
  await variant('oltp', 'base', (file) => oltpChanges({ path: file, seed: 'oltp', dirtyBytes, signal }));
  say('building sibling');
  await buildSibling({ ...disk, path: path('sibling') });
  await makeHuge(path('huge'), sizeBytes * HUGE_SHARE_OF_BASE, signal);
  await variant('hugeDay', 'huge', async (file) => writeHugeDay(file, dirtyBytes));
  await writeFile(`${planFile}.new`, JSON.stringify({ plan, base, bytes }));
  await rename(`${planFile}.new`, planFile);
  return images(base, bytes);
}

async function demandSpace(dir: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dir);
  if (bavail * bsize < bytes * 1.5) {
    throw new Error(
      `The benchmark needs ${formatBytes(bytes * 1.5)} in ${dir}; take a smaller --size or another --dir`,
    );
  }
}

/** Node's copyFile would fill the holes. */
function sparseCopy(from: string, to: string): void {
  const { status, stderr } = spawnSync('cp', ['--sparse=always', '--reflink=auto', from, to], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`cp failed: ${stderr}`);
}

/** A disk of 1 TiB with `bytes` of rows in 64 places. */
async function makeHuge(path: string, bytes: number, signal: AbortSignal): Promise<void> {
  const file = await open(path, 'wx+', 0o600);
  try {
    await file.truncate(HUGE_BYTES);
    const dice = chance('huge');
    const piece = Buffer.alloc(2 ** 20);
    const places = 64;
    for (let i = 0; i < Math.max(places, bytes / piece.length); i++) {
      signal.throwIfAborted();
      fillRows(piece, dice);
      const start = Math.floor((HUGE_BYTES / places) * (i % places));
      await file.write(piece, 0, piece.length, start + Math.floor(i / places) * piece.length);
    }
  } finally {
    await file.close();
  }
}

async function writeHugeDay(path: string, bytes: number): Promise<Extent[]> {
  const file = await open(path, 'r+');
  try {
    const dice = chance('huge day');
    const page = Buffer.alloc(4096);
    const offsets = new Set<number>();
    while (offsets.size * page.length < bytes) {
      // Inside the first MiB of one of the 64 places, or anywhere in the holes.
      const offset =
        dice.fraction() < 0.9
          ? (HUGE_BYTES / 64) * dice.between(0, 63)
          : dice.between(0, HUGE_BYTES / 4096 - 256) * 4096;
      offsets.add(offset + dice.between(0, 255) * 4096);
    }
    const extents = [...offsets].sort((a, b) => a - b).map((offset) => ({ offset, length: page.length }));
    for (const { offset } of extents) {
      fillRows(page, dice);
      await file.write(page, 0, page.length, offset);
    }
    return extents;
  } finally {
    await file.close();
  }
}
