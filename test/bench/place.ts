import { cpSync, linkSync, lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Place } from './contestants.ts';

/** Files of a repository at least this large are packs, which nobody changes in place. */
const LINKED_BYTES = 2 ** 20;

/** A contestant's empty folder. */
export function emptyPlace(root: string, contestant: string): Place {
  const dir = join(root, contestant);
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(join(dir, 'home'), { recursive: true });
  return placeAt(dir);
}

function placeAt(dir: string): Place {
  return { dir, repo: join(dir, 'repo'), home: join(dir, 'home'), disk: join(dir, 'disk.img') };
}

/** Puts an image in as today's disk. */
export function insertDisk(place: Place, image: string): void {
  rmSync(place.disk, { force: true });
  linkSync(image, place.disk);
}

/** Keeps the folder's state, so that each scenario starts from the same full backup. */
export function save(place: Place): void {
  copyTree(place.dir, `${place.dir}.saved`);
}

/** Brings the state of {@link save} back, under the same path. */
export function restoreSaved(place: Place): void {
  copyTree(`${place.dir}.saved`, place.dir);
}

function copyTree(from: string, to: string): void {
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to, { recursive: true });
  for (const name of readdirSync(from)) {
    if (name === 'disk.img' || name.startsWith('restored')) continue;
    if (name === 'repo') linkTree(join(from, name), join(to, name));
    else cpSync(join(from, name), join(to, name), { recursive: true });
  }
}

function linkTree(from: string, to: string): void {
  mkdirSync(to);
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) linkTree(source, target);
    else if (lstatSync(source).size >= LINKED_BYTES) linkSync(source, target);
    else cpSync(source, target, { preserveTimestamps: true });
  }
}

/** Bytes of all files below a folder. */
export function storedBytes(folder: string): number {
  return readdirSync(folder, { withFileTypes: true }).reduce((sum, entry) => {
    const path = join(folder, entry.name);
    return sum + (entry.isDirectory() ? storedBytes(path) : lstatSync(path).size);
  }, 0);
}
