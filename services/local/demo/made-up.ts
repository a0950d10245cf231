import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { type Chance, chance, fillRows, fillWords } from './chance.ts';
import { type FileToCopy, type Folder, onDisk } from './files.ts';

/** Where the made-up database lies on a disk. */
export const DATABASE_FOLDER = '/srv/database';
const MADE_UP_FOLDER = '/srv/files';

const DATABASE_FILE_BYTES = 64 * 2 ** 20;
const PIECE_BYTES = 2 ** 20;
const FILES_A_FOLDER = 200;

type Filler = (into: Uint8Array, from: Chance) => void;

/** Table files of a database, half compressible, `bytes` in all. */
export async function makeDatabase(
  scratch: string,
  bytes: number,
  seed: string,
  signal?: AbortSignal,
): Promise<Folder[]> {
  const files: FileToCopy[] = [];
  for (let left = bytes; left > 0; left -= DATABASE_FILE_BYTES) {
    const name = `table-${files.length}.dat`;
    const size = Math.min(left, DATABASE_FILE_BYTES);
    const from = await makeFile(join(scratch, name), size, fillRows, chance(`${seed}/${name}`), signal);
    files.push({ from, to: `${DATABASE_FOLDER}/${name}`, bytes: size });
  }
  return [{ path: DATABASE_FOLDER, files, bytes }];
}

/** Files of all sizes, `bytes` in all: text, rows, and data that nothing compresses. For machines that have too few of their own. */
export async function makeFiles(scratch: string, bytes: number, seed: string, signal?: AbortSignal): Promise<Folder[]> {
  const dice = chance(`${seed}/made-up`);
  const folders: { path: string; files: FileToCopy[]; bytes: number }[] = [];
  let count = 0;
  for (let left = bytes; left >= 4096; count++) {
    // From 4 KiB to 16 MiB, as many of each magnitude: a few large files hold most of the bytes, as on real disks.
    const size = Math.min(left, Math.floor(4096 * 2 ** (dice.fraction() * 12)));
    const kind = dice.fraction();
    const fill: Filler = kind < 0.5 ? fillWords : kind < 0.8 ? fillRows : (into, from) => from.fill(into);
    const name = `file-${count}`;
    const from = await makeFile(join(scratch, name), size, fill, dice, signal);
    const path = `${MADE_UP_FOLDER}/${Math.floor(count / FILES_A_FOLDER)}`;
    if (folders.at(-1)?.path !== path) folders.push({ path, files: [], bytes: 0 });
    const folder = folders.at(-1)!;
    folder.files.push({ from, to: `${path}/${name}`, bytes: size });
    folder.bytes += onDisk(size);
    left -= onDisk(size);
  }
  return folders;
}

/** Writes one file piece by piece and returns its path. */
export async function makeFile(
  path: string,
  bytes: number,
  fill: Filler,
  from: Chance,
  signal?: AbortSignal,
): Promise<string> {
  const file = await open(path, 'wx');
  try {
    const piece = Buffer.alloc(Math.min(PIECE_BYTES, bytes));
    for (let left = bytes; left > 0; left -= piece.length) {
      signal?.throwIfAborted();
      const part = piece.subarray(0, Math.min(left, piece.length));
      fill(part, from);
      await file.write(part);
    }
  } finally {
    await file.close();
  }
  return path;
}
