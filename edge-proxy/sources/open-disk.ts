import type { NbdOptions } from '../nbd/client.ts';
import type { DiskLocator, DiskReader, DiskWriter } from './disk.ts';
import { openFileReader, openFileWriter } from './file.ts';
import { openNbdReader, openNbdWriter } from './nbd-disk.ts';

/** Opens a disk for reading; one connection or descriptor, so each worker calls it. Throws like its kind. */
export async function openDiskReader(locator: DiskLocator, options: NbdOptions = {}): Promise<DiskReader> {
  return locator.kind === 'file' ? openFileReader(locator.path) : openNbdReader(locator.address, options);
}

/**
 * Opens a disk for writing. `createSizeBytes`: a file that does not exist is made, sparse and of that size; anything
 * else must be large enough.
 */
export async function openDiskWriter(
  locator: DiskLocator,
  options: NbdOptions & { readonly createSizeBytes?: number } = {},
): Promise<DiskWriter> {
  return locator.kind === 'file' ? openFileWriter(locator.path, options) : openNbdWriter(locator.address, options);
}
