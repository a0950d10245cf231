import { createHash } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { type FileHandle, lstat, open, unlink } from 'node:fs/promises';
import { HoldfastError } from '#contract/errors.ts';
import { fileErrorCode } from './file-errors.ts';

/** Buffers a single writev takes (IOV_MAX on Linux and macOS). */
const WRITEV_MAX_BUFFERS = 1024;

/** Writes the parts in order in as few calls as possible, without joining them. Answers the SHA-256 if it is asked for. */
export async function writeParts(
  handle: FileHandle,
  parts: readonly Uint8Array[],
  options: { readonly sha256?: Uint8Array; readonly signal?: AbortSignal },
): Promise<Uint8Array | undefined> {
  const hash = options.sha256 === undefined ? undefined : createHash('sha256');
  for (let at = 0; at < parts.length; at += WRITEV_MAX_BUFFERS) {
    options.signal?.throwIfAborted();
    const batch = parts.slice(at, at + WRITEV_MAX_BUFFERS);
    const written = writeAll(handle, batch);
    if (hash) for (const part of batch) hash.update(part); // while the batch is on its way
    await written;
  }
  return hash?.digest();
}

/** writev may write less than asked (a full disk, a signal): goes on from there. */
export async function writeAll(handle: FileHandle, buffers: readonly Uint8Array[]): Promise<void> {
  let rest = buffers.filter((buffer) => buffer.length > 0);
  while (rest.length > 0) {
    let { bytesWritten } = await handle.writev(rest);
    const next: Uint8Array[] = [];
    for (const buffer of rest) {
      if (bytesWritten < buffer.length) next.push(bytesWritten === 0 ? buffer : buffer.subarray(bytesWritten));
      bytesWritten = Math.max(0, bytesWritten - buffer.length);
    }
    rest = next;
  }
}

/** Opens a file for reading; `undefined` if there is none, or it is a folder. */
export async function openFile(path: string): Promise<{ handle: FileHandle; found: Stats } | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY);
  } catch (error) {
    const code = fileErrorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
  try {
    const found = await handle.stat();
    if (found.isFile()) return { handle, found };
  } catch (error) {
    await handle.close();
    throw error;
  }
  await handle.close(); // a folder of other keys is not an object
  return undefined;
}

/** Reads exactly that range of an object's file; throws `damaged` if it ends before. */
export async function readFully(handle: FileHandle, offset: number, length: number, key: string): Promise<Uint8Array> {
  const into = Buffer.allocUnsafeSlow(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await handle.read(into, done, length - done, offset + done);
    if (bytesRead === 0) throw tooShort(key, offset + done, offset, length);
    done += bytesRead;
  }
  return into;
}

/** Removes a file; false if there is none. */
export async function removeFile(path: string): Promise<boolean> {
  try {
    await unlink(path);
    return true;
  } catch (error) {
    const code = fileErrorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return false;
    // Linux answers EISDIR, macOS EPERM, when the key is a folder of other keys: there is no such object.
    if (code === 'EISDIR' || (code === 'EPERM' && (await lstat(path)).isDirectory())) return false;
    throw error;
  }
}

/** The error for an object that ends before a range that was asked for. */
export function tooShort(key: string, sizeBytes: number, offset: number, length: number): HoldfastError {
  return new HoldfastError('damaged', `The object ${key} ends at ${sizeBytes}, before ${offset + length}`, {
    data: { key, offset, length, sizeBytes },
    remedy: 'Check the vault: holdfast vault verify',
  });
}
