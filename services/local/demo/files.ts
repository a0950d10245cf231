import { accessSync, constants, existsSync, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { placeOf } from './chance.ts';

/** A file of this machine and where it goes on the disk. */
export interface FileToCopy {
  readonly from: string;
  readonly to: string;
  readonly bytes: number;
}

/** Files of one folder, in order of their names, that stay together on every disk. Large folders are several. */
export interface Folder {
  readonly path: string;
  readonly files: readonly FileToCopy[];
  /** Bytes of disk: files take whole 4 KiB blocks. */
  readonly bytes: number;
}

/** Software, the same for every user: nobody's own files are read. */
const ROOTS: readonly string[] = ['/usr', '/opt', '/var/lib'];
const MAX_FOLDERS = 200_000;
const BLOCK_BYTES = 4096;
/** Small enough that even a small disk gets a share of a folder like /usr/bin. */
const MAX_PART_BYTES = 4 * 2 ** 20;

/** Folders of this machine's software (or below other roots) that can be read, in order of their paths. */
export function readableFolders(roots = ROOTS): Folder[] {
  const folders: Folder[] = [];
  const walk = (path: string): void => {
    if (folders.length >= MAX_FOLDERS) return;
    let entries: ReturnType<typeof names>;
    try {
      entries = names(path);
    } catch {
      return; // unreadable or gone: the disk simply lacks it
    }
    const files = entries.filter((entry) => entry.isFile()).flatMap((entry) => copyable(path, entry.name));
    folders.push(...partsOf(path, files));
    for (const entry of entries) if (entry.isDirectory() && isPlain(entry.name)) walk(join(path, entry.name));
  };
  for (const root of roots) if (existsSync(root) && !lstatSync(root).isSymbolicLink()) walk(root);
  return folders;
}

function partsOf(path: string, files: readonly FileToCopy[]): Folder[] {
  const parts: { path: string; files: FileToCopy[]; bytes: number }[] = [];
  for (const file of files) {
    const last = parts.at(-1);
    if (last === undefined || last.bytes + file.bytes > MAX_PART_BYTES) parts.push({ path, files: [], bytes: 0 });
    parts.at(-1)!.files.push(file);
    parts.at(-1)!.bytes += onDisk(file.bytes);
  }
  return parts;
}

/** Bytes that a file of this size takes on an ext4 disk. */
export function onDisk(bytes: number): number {
  return Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES;
}

/** The folders in an order that depends on the seed only, until `bytes` are reached; and the ones left over. */
export function chooseFolders(
  all: readonly Folder[],
  bytes: number,
  seed: string,
): { chosen: Folder[]; left: Folder[] } {
  const chosen: Folder[] = [];
  const left: Folder[] = [];
  let sum = 0;
  const places = new Map(all.map((folder) => [folder, placeOf(seed, folder.path, folder.files[0]!.to)]));
  for (const folder of [...all].sort((a, b) => places.get(a)! - places.get(b)!)) {
    const fits = sum + folder.bytes <= bytes && folder.bytes <= bytes / 4;
    if (fits) sum += folder.bytes;
    (fits ? chosen : left).push(folder);
  }
  return { chosen, left };
}

/** Folders below the same one of this depth, such as /usr/share/doc/bash, count as one package. */
const PACKAGE_DEPTH = 4;

/**
 * The folders in the order that a seed gives them: package by package, as they would be installed. What belongs to one package
 * stays in order, so that two machines have long stretches in common, in other places.
 */
export function inOrderOf(folders: readonly Folder[], seed: string): Folder[] {
  const places = new Map<string, number>();
  const placed = folders.map((folder) => {
    const name = folder.path.split('/', PACKAGE_DEPTH + 1).join('/');
    const place = places.get(name) ?? placeOf(seed, name);
    places.set(name, place);
    return { folder, place, first: folder.files[0]!.to };
  });
  placed.sort((a, b) => a.place - b.place || (a.first < b.first ? -1 : 1));
  return placed.map(({ folder }) => folder);
}

function names(path: string) {
  return readdirSync(path, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** debugfs's command language cannot quote these. */
function isPlain(name: string): boolean {
  return !/["\\\n\r]/.test(name);
}

function copyable(path: string, name: string): FileToCopy[] {
  const from = join(path, name);
  if (!isPlain(name)) return [];
  try {
    accessSync(from, constants.R_OK);
    const { size } = lstatSync(from);
    return size > 0 ? [{ from, to: from, bytes: size }] : [];
  } catch {
    return [];
  }
}
