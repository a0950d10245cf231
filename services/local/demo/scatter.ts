import { type FileHandle, open } from 'node:fs/promises';
import type { Extent } from '#edge/sources/disk.ts';
import { type Chance, chance, fillRows } from './chance.ts';
import { DATABASE_FOLDER } from './made-up.ts';
import { runProgram } from './program.ts';

const PAGE_BYTES = 4096;
const MAX_RUN_PAGES = 16;

export interface Scatter {
  readonly path: string;
  readonly seed: string;
  readonly signal?: AbortSignal;
}

/**
 * Changes a share of a disk's bytes in place, in scattered runs of 4 to 64 KiB where it holds data: three runs in four become rows,
 * the fourth cannot be compressed. Resolves to the changed extents, sorted. The file system on it is not sound afterwards.
 */
export async function scatterChanges({
  path,
  seed,
  share,
  signal,
}: Scatter & { readonly share: number }): Promise<Extent[]> {
  const file = await open(path, 'r+');
  try {
    const { size } = await file.stat();
    const dice = chance(seed);
    const pages = Math.floor(size / PAGE_BYTES);
    const changed = new Set<number>();
    const wanted = Math.floor(pages * share);
    // A disk with hardly any data would be searched for ever: give up after so many misses.
    for (let misses = 0; changed.size < wanted && misses < 100_000; ) {
      signal?.throwIfAborted();
      const first = dice.between(0, pages - 1);
      const length = Math.min(dice.between(1, MAX_RUN_PAGES), pages - first, wanted - changed.size);
      if (changed.has(first) || (await isZeroPage(file, first))) misses++;
      else await overwrite(file, first, length, dice, changed);
    }
    return extentsOf(changed);
  } finally {
    await file.close();
  }
}

/**
 * Does a day of a busy database: `dirtyBytes` (default 16 MB) of single pages, scattered over its table files, get some new rows
 * each. Resolves to the changed extents, sorted: what a hypervisor's change tracking would say.
 */
export async function oltpChanges({
  path,
  seed,
  dirtyBytes = 16e6,
  signal,
}: Scatter & { readonly dirtyBytes?: number }): Promise<Extent[]> {
  const pages = await databasePages(path, signal);
  const dice = chance(seed);
  const wanted = Math.min(Math.ceil(dirtyBytes / PAGE_BYTES), pages.length);
  const changed = new Set<number>();
  const file = await open(path, 'r+');
  try {
    const page = Buffer.alloc(PAGE_BYTES);
    while (changed.size < wanted) {
      const number = pages[dice.between(0, pages.length - 1)]!;
      if (changed.has(number)) continue;
      signal?.throwIfAborted();
      await file.read(page, 0, PAGE_BYTES, number * PAGE_BYTES);
      const row = dice.between(0, 23) * 128;
      fillRows(page.subarray(row, row + 1024), dice);
      await file.write(page, 0, PAGE_BYTES, number * PAGE_BYTES);
      changed.add(number);
    }
  } finally {
    await file.close();
  }
  return extentsOf(changed);
}

async function isZeroPage(file: FileHandle, number: number): Promise<boolean> {
  const page = Buffer.alloc(PAGE_BYTES);
  await file.read(page, 0, PAGE_BYTES, number * PAGE_BYTES);
  return page.equals(Buffer.alloc(PAGE_BYTES));
}

async function overwrite(
  file: FileHandle,
  first: number,
  length: number,
  dice: Chance,
  changed: Set<number>,
): Promise<void> {
  const run = Buffer.alloc(length * PAGE_BYTES);
  if (dice.fraction() < 0.25) dice.fill(run);
  else fillRows(run, dice);
  await file.write(run, 0, run.length, first * PAGE_BYTES);
  for (let i = 0; i < length; i++) changed.add(first + i);
}

/** Page numbers on the disk of the database's table files. */
async function databasePages(path: string, signal?: AbortSignal): Promise<number[]> {
  const options = { keepAll: true, ...(signal ? { signal } : {}) };
  const pages: number[] = [];
  const { stdout: listing } = await runProgram('debugfs', ['-R', `ls -p ${DATABASE_FOLDER}`, path], options);
  for (const [, name] of listing.matchAll(/\/(table-\d+\.dat)\//g)) {
    const { stdout } = await runProgram('debugfs', ['-R', `blocks ${DATABASE_FOLDER}/${name}`, path], options);
    for (const [block] of stdout.matchAll(/\d+/g)) pages.push(Number(block));
  }
  return pages;
}

/** Page numbers as extents in bytes, sorted, neighbours joined. */
function extentsOf(pages: ReadonlySet<number>): Extent[] {
  const extents: { offset: number; length: number }[] = [];
  for (const page of [...pages].sort((a, b) => a - b)) {
    const last = extents.at(-1);
    if (last !== undefined && last.offset + last.length === page * PAGE_BYTES) last.length += PAGE_BYTES;
    else extents.push({ offset: page * PAGE_BYTES, length: PAGE_BYTES });
  }
  return extents;
}
