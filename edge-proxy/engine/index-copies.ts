import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import type { Blobs } from '#ports/blobs.ts';
import type { Random } from '#ports/random.ts';
import {
  checkIndexSegment,
  INDEX_HEADER_BYTES,
  INDEX_TRAILER_BYTES,
  indexHeadLength,
  readIndexHead,
} from '#repository/index-segment.ts';
import type { Generation, SegmentRef } from '#repository/state.ts';
import { writeFailure } from '../sources/file-errors.ts';
import type { IndexCopy } from './known-chunks.ts';
import { isLoss } from './loss.ts';
import type { EngineContext } from './request.ts';

const FETCHES_AT_ONCE = 4;
const READ_BYTES = 1024 * 1024;
/** Copies that are no longer live stay this long: another backup on this proxy may be reading or making them. */
const STALE_MS = 24 * 3_600_000;

/**
 * Brings the local copies of a generation's index segments up to date: fetches and checks what is new,
 * deletes what has not been live for a day. Every copy is checked whole before it is used: a flipped bit in it
 * could hide a chunk that is there.
 *
 * @param onLost  takes segments that the vault has lost, so that the others can be used; without it they are thrown
 */
export async function syncIndexCopies(
  folder: string,
  generation: Generation,
  blobs: Blobs,
  { clock, random, signal }: Pick<EngineContext, 'clock' | 'random' | 'signal'>,
  onLost?: (segment: SegmentRef, error: HoldfastError) => void,
): Promise<IndexCopy[]> {
  await mkdir(folder, { recursive: true });
  const live = new Set(generation.segments.map((segment) => basename(segment.key)));
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    const held = live.has(name) ? undefined : await stat(path).catch(() => undefined);
    if (held && held.mtimeMs < clock.nowMs() - STALE_MS) await rm(path, { force: true });
  }
  const copies: IndexCopy[] = [];
  for (let at = 0; at < generation.segments.length; at += FETCHES_AT_ONCE) {
    signal?.throwIfAborted();
    const group = generation.segments.slice(at, at + FETCHES_AT_ONCE);
    const found = group.map((segment) =>
      copyOf(folder, segment, blobs, random).catch((error: unknown) => {
        if (onLost === undefined || !isLoss(error)) throw error;
        onLost(segment, error);
      }),
    );
    for (const copy of await Promise.all(found)) if (copy) copies.push(copy);
  }
  return copies;
}

async function copyOf(folder: string, segment: SegmentRef, blobs: Blobs, random: Random): Promise<IndexCopy> {
  const path = join(folder, basename(segment.key));
  const data = { key: segment.key };
  const remedy = 'Restore this object from another copy of the vault; `vault verify` tells which points need it';
  const held = await stat(path).catch(() => undefined);
  if (held?.size === segment.sizeBytes && (await isSound(path, held.size))) return await openIndexCopy(path);
  const found = await blobs.get(segment.key);
  if (found === undefined)
    throw new HoldfastError('missing', `The vault's index segment ${segment.key} is gone`, { data, remedy });
  try {
    await writeIndexCopy(path, Buffer.from(found.content), random);
  } catch (cause) {
    if (!isHoldfastError(cause, 'damaged')) throw cause;
    throw new HoldfastError('damaged', `${segment.key}: ${cause.message}`, { cause, data, remedy });
  }
  return await openIndexCopy(path);
}

/** True if the file ends with the SHA-256 of all that is before, as a segment does. */
async function isSound(path: string, sizeBytes: number): Promise<boolean> {
  const end = sizeBytes - INDEX_TRAILER_BYTES;
  if (end < INDEX_HEADER_BYTES) return false;
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path, { end: end - 1, highWaterMark: READ_BYTES })) hash.update(piece);
  const file = await open(path, 'r');
  try {
    const trailer = Buffer.alloc(INDEX_TRAILER_BYTES);
    await file.read(trailer, 0, trailer.length, end);
    return hash.digest().equals(trailer);
  } finally {
    await file.close();
  }
}

/** Checks a segment and puts it beside the others, whole or not at all. */
export async function writeIndexCopy(path: string, bytes: Buffer, random: Random): Promise<void> {
  checkIndexSegment(bytes);
  const temporary = `${path}.${Buffer.from(random.bytes(6)).toString('hex')}.new`;
  try {
    const file = await open(temporary, 'wx', 0o600);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true });
    throw writeFailure(path, cause);
  }
}

/** Loads a copy's head into shared memory. */
export async function openIndexCopy(path: string): Promise<IndexCopy> {
  const file = await open(path, 'r');
  try {
    const header = Buffer.alloc(INDEX_HEADER_BYTES);
    await file.read(header, 0, header.length, 0);
    const bytes = Buffer.alloc(indexHeadLength(header));
    await file.read(bytes, 0, bytes.length, 0);
    return { path, head: readIndexHead(bytes, (length) => new SharedArrayBuffer(length)) };
  } finally {
    await file.close();
  }
}
