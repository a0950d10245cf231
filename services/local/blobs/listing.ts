import type { Dirent } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { BlobPage } from '#ports/blobs.ts';
import { fileErrorCode } from './file-errors.ts';

/**
 * A page of the keys below `root` that start with `prefix` and come after `after`, in byte order.
 *
 * A folder sorts as its name with a `/`, which is how its keys begin, so that walking in that order
 * gives the order of the whole keys. Objects deleted during the walk are left out.
 */
export async function listFiles(
  root: string,
  prefix: string,
  after: string | undefined,
  max: number,
): Promise<BlobPage> {
  const blobs: { key: string; sizeBytes: number }[] = [];
  const afterBytes = after === undefined ? undefined : Buffer.from(after);
  let more = false;

  /** Adds the keys of one folder (`''` or ending in `/`); false once the page is full. */
  async function walk(folder: string): Promise<boolean> {
    for (const { name, isFolder } of await entriesOf(join(root, folder))) {
      const key = folder + name;
      const comparable = isFolder ? `${key}/` : key;
      if (!comparable.startsWith(prefix) && !(isFolder && prefix.startsWith(comparable))) continue;
      if (afterBytes !== undefined) {
        const order = Buffer.compare(Buffer.from(comparable), afterBytes);
        // A folder before the cursor may still hold keys after it, if the cursor lies inside.
        if (order <= 0 && !(isFolder && after?.startsWith(comparable))) continue;
      }
      if (isFolder) {
        if (!(await walk(comparable))) return false;
        continue;
      }
      const sizeBytes = await sizeOf(join(root, key));
      if (sizeBytes === undefined) continue;
      if (blobs.length === max) {
        more = true;
        return false;
      }
      blobs.push({ key, sizeBytes });
    }
    return true;
  }

  await walk(prefix.slice(0, prefix.lastIndexOf('/') + 1));
  const last = blobs.at(-1);
  return more && last !== undefined ? { blobs, next: last.key } : { blobs };
}

async function entriesOf(folder: string): Promise<{ name: string; isFolder: boolean }[]> {
  let entries: Dirent[];
  try {
    entries = await readdir(folder, { withFileTypes: true });
  } catch (error) {
    const code = fileErrorCode(error);
    // The prefix's folder does not exist (or is an object): there are no such keys. Any other error must
    // surface: a listing that is silently short would let the collector delete live data.
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw error;
  }
  return entries
    .filter((entry) => !entry.name.startsWith('.') && (entry.isFile() || entry.isDirectory()))
    .map((entry) => {
      const isFolder = entry.isDirectory();
      return { name: entry.name, isFolder, order: Buffer.from(isFolder ? `${entry.name}/` : entry.name) };
    })
    .sort((a, b) => Buffer.compare(a.order, b.order));
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (fileErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}
