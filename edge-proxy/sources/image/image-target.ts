import { execFile } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { promisify } from 'node:util';
import { HoldfastError } from '#contract/errors.ts';
import type { DiskLocator } from '../disk.ts';
import { serveImage } from './qemu-nbd.ts';

/** Formats a disk can be restored to besides raw. */
export type TargetFormat = 'qcow2';

/** A new image to restore to. Close it before using the file. */
export interface ImageTarget extends AsyncDisposable {
  readonly locator: DiskLocator;
}

/**
 * Makes an empty image of a disk's size, replacing a file of that name, and opens it for writing through qemu-nbd.
 * Throws `needs-program` without qemu-utils, `target-failed` if it cannot be made.
 */
export async function createImageTarget(
  path: string,
  format: TargetFormat,
  sizeBytes: number,
  signal?: AbortSignal,
): Promise<ImageTarget> {
  await rm(path, { force: true });
  try {
    await promisify(execFile)(
      'qemu-img',
      ['create', '-q', '-f', format, path, String(sizeBytes)],
      signal ? { signal } : {},
    );
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') {
      throw new HoldfastError('needs-program', `Writing ${format} images needs the program qemu-img`, {
        cause,
        remedy: 'Install the Debian package qemu-utils, or restore to a raw file',
      });
    }
    signal?.throwIfAborted();
    throw new HoldfastError(
      'target-failed',
      `${path} cannot be made: ${(cause as { stderr?: string }).stderr?.trim() ?? cause}`,
      {
        cause,
        remedy: 'Check the folder, its permissions and its free space',
      },
    );
  }
  const server = await serveImage(path, format, signal, 'write');
  return { locator: { kind: 'nbd', address: server.address }, [Symbol.asyncDispose]: () => server.close() };
}
