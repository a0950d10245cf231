import { closeSync, openSync, readSync, statSync } from 'node:fs';
import type { DiskLocator, DiskReader } from './disk.ts';
export async function openDiskReader(l: DiskLocator): Promise<DiskReader> {
  if (l.kind !== 'file') throw new Error('later');
  const fd = openSync(l.path, 'r');
  return {
    sizeBytes: statSync(l.path).size,
    style: 'immediate',
    read(o, into) {
      readSync(fd, into, 0, into.length, o);
    },
    async close() {
      closeSync(fd);
    },
  };
}
