import { closeSync, fsync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import { openFileSize } from './device-size.ts';
import type { DiskReader, DiskWriter } from './disk.ts';
import { readFailure, writeFailure } from './file-errors.ts';

const STEP_BYTES = 256 * 1024;
const ZEROS = Buffer.alloc(STEP_BYTES);
const fsyncLater = promisify(fsync);

/** Opens a raw file or block device for reading. Throws `not-found`, `forbidden`, `usage`, `unreadable`. */
export function openFileReader(path: string): DiskReader {
  const { fd, sizeBytes } = openSized(path, 'r');
  return {
    sizeBytes,
    style: 'immediate',
    read: (offset, into) => readFully(fd, path, sizeBytes, offset, into),
    close: async () => closeSync(fd),
  };
}

/**
 * Opens a raw file or block device for writing. With `createSizeBytes` a file that does not exist is made, sparse
 * and of that size; one that exists must have that size (a device: at least that). Throws `exists` if it has another
 * size, `target-full`, `not-found`, `forbidden`, `busy`, `target-failed`.
 */
export async function openFileWriter(
  path: string,
  options: { readonly createSizeBytes?: number } = {},
): Promise<DiskWriter> {
  const { fd, sizeBytes, startsZero } = await openTarget(path, options.createSizeBytes);
  const write = (offset: number, data: Uint8Array) => {
    inside(path, sizeBytes, offset, data.length);
    writeFully(fd, path, offset, data);
  };
  const scratch = Buffer.alloc(STEP_BYTES);
  return {
    sizeBytes,
    startsZero,
    write,
    zero: (offset, length) => {
      inside(path, sizeBytes, offset, length);
      for (let done = 0; done < length; done += STEP_BYTES) {
        const step = Math.min(STEP_BYTES, length - done);
        const now = scratch.subarray(0, step);
        // Node cannot punch holes; but what reads as zeros already, above all a hole, is left as it is.
        readFully(fd, path, sizeBytes, offset + done, now);
        if (!now.equals(ZEROS.subarray(0, step))) writeFully(fd, path, offset + done, ZEROS.subarray(0, step));
      }
    },
    read: (offset, into) => readFully(fd, path, sizeBytes, offset, into),
    flush: async () => {
      try {
        await fsyncLater(fd);
      } catch (cause) {
        throw writeFailure(path, cause);
      }
    },
    close: async () => closeSync(fd),
  };
}

async function openTarget(
  path: string,
  createSizeBytes: number | undefined,
): Promise<{ fd: number; sizeBytes: number; startsZero: boolean }> {
  if (createSizeBytes !== undefined) {
    const fd = createFile(path);
    if (fd !== undefined) {
      grow(fd, path, createSizeBytes);
      await syncFolder(dirname(path));
      return { fd, sizeBytes: createSizeBytes, startsZero: true };
    }
  }
  const { fd, sizeBytes, isDevice } = openSized(path, 'r+');
  if (createSizeBytes === undefined || sizeBytes === createSizeBytes) return { fd, sizeBytes, startsZero: false };
  if (isDevice && sizeBytes > createSizeBytes) return { fd, sizeBytes, startsZero: false };
  if (!isDevice && sizeBytes === 0) {
    grow(fd, path, createSizeBytes);
    return { fd, sizeBytes: createSizeBytes, startsZero: true };
  }
  closeSync(fd);
  const data = { path, sizeBytes, neededBytes: createSizeBytes };
  if (isDevice) {
    throw new HoldfastError('target-full', `The device ${path} has ${sizeBytes} bytes, ${createSizeBytes} are needed`, {
      remedy: 'Choose a device at least as large as the disk',
      data,
    });
  }
  throw new HoldfastError('exists', `${path} exists and has ${sizeBytes} bytes, not ${createSizeBytes}`, {
    remedy: 'Choose another name or remove it',
    data,
  });
}

/** A new file's descriptor, or `undefined` if something has the name already. */
function createFile(path: string): number | undefined {
  try {
    return openSync(path, 'wx+', 0o600); // a disk holds secrets; whoever restores may widen it
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return undefined;
    throw writeFailure(path, cause);
  }
}

function grow(fd: number, path: string, sizeBytes: number): void {
  try {
    ftruncateSync(fd, sizeBytes);
  } catch (cause) {
    closeSync(fd);
    throw writeFailure(path, cause);
  }
}

/** Without this a new file's name may be lost with the power although its content was flushed. */
async function syncFolder(path: string): Promise<void> {
  try {
    const folder = await open(path, 'r');
    await folder.sync().finally(() => folder.close());
  } catch (cause) {
    // Some file systems cannot sync folders; the content is flushed all the same.
    const code = (cause as NodeJS.ErrnoException).code;
    if (code !== 'EINVAL' && code !== 'EACCES' && code !== 'ENOTSUP') throw writeFailure(path, cause);
  }
}

function openSized(path: string, mode: 'r' | 'r+'): { fd: number; sizeBytes: number; isDevice: boolean } {
  let fd: number;
  try {
    fd = openSync(path, mode);
  } catch (cause) {
    throw mode === 'r' ? readFailure(path, cause) : writeFailure(path, cause);
  }
  try {
    return { fd, ...openFileSize(fd, path) };
  } catch (cause) {
    closeSync(fd);
    throw isHoldfastError(cause) ? cause : readFailure(path, cause);
  }
}

function readFully(fd: number, path: string, sizeBytes: number, offset: number, into: Uint8Array): void {
  for (let done = 0; done < into.length; ) {
    const range = { offset: offset + done, length: into.length - done };
    let n: number;
    try {
      n = readSync(fd, into, done, range.length, range.offset);
    } catch (cause) {
      throw readFailure(path, cause, range);
    }
    if (n === 0) throw shrunk(path, fd, sizeBytes, range);
    done += n;
  }
}

function writeFully(fd: number, path: string, offset: number, data: Uint8Array): void {
  for (let done = 0; done < data.length; ) {
    const range = { offset: offset + done, length: data.length - done };
    try {
      done += writeSync(fd, data, done, range.length, range.offset);
    } catch (cause) {
      throw writeFailure(path, cause, range);
    }
  }
}

function inside(path: string, sizeBytes: number, offset: number, length: number): void {
  if (offset >= 0 && length >= 0 && offset + length <= sizeBytes) return;
  // A write past the end would make the file grow without a word.
  throw new HoldfastError('usage', `The range ${offset}+${length} is outside of ${path} (${sizeBytes} bytes)`, {
    data: { path, offset, length, sizeBytes },
  });
}

function shrunk(
  path: string,
  fd: number,
  sizeBytes: number,
  range: { readonly offset: number; readonly length: number },
): HoldfastError {
  const now = openFileSize(fd, path).sizeBytes;
  const ended = now === sizeBytes ? `ends at ${range.offset}` : `has now ${now}`;
  return new HoldfastError('source-changed', `${path} had ${sizeBytes} bytes when it was opened and ${ended}`, {
    remedy: 'Back the disk up while nothing changes its size',
    data: { path, sizeBytes, nowBytes: now, ...range },
  });
}
