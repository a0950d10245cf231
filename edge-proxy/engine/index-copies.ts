import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { HoldfastError } from '#contract/errors.ts';
import type { Blobs } from '#ports/blobs.ts';
import type { Random } from '#ports/random.ts';
import { checkIndexSegment, INDEX_HEADER_BYTES, indexHeadLength, readIndexHead } from '#repository/index-segment.ts';
import type { Generation, SegmentRef } from '#repository/state.ts';
import type { IndexCopy } from './known-chunks.ts';
import type { EngineContext } from './request.ts';

const FETCHES_AT_ONCE = 4;
/** Copies that are no longer live stay this long: another backup on this proxy may be reading or making them. */
const STALE_MS = 24 * 3_600_000;

/**
 * Brings the local copies of a generation's index segments up to date: fetches and checks what is new,
 * deletes what has not been live for a day. Segments are immutable, so a copy of the right name and size is right.
 */
export async function syncIndexCopies(
  folder: string,
  generation: Generation,
  blobs: Blobs,
  { clock, random, signal }: Pick<EngineContext, 'clock' | 'random' | 'signal'>,
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
    copies.push(...(await Promise.all(group.map((segment) => copyOf(folder, segment, blobs, random)))));
  }
  return copies;
}

async function copyOf(folder: string, segment: SegmentRef, blobs: Blobs, random: Random): Promise<IndexCopy> {
  const path = join(folder, basename(segment.key));
  const held = await stat(path).catch(() => undefined);
  if (held?.size !== segment.sizeBytes) {
    const found = await blobs.get(segment.key);
    if (found === undefined) {
      throw new HoldfastError('missing', `The vault's index segment ${segment.key} is gone`, {
        data: { key: segment.key },
        remedy: 'Rebuild the index from the packs',
      });
    }
    await writeIndexCopy(path, Buffer.from(found.content), random);
  }
  return await openIndexCopy(path);
}

/** Checks a segment and puts it beside the others, whole or not at all. */
export async function writeIndexCopy(path: string, bytes: Buffer, random: Random): Promise<void> {
  checkIndexSegment(bytes);
  const temporary = `${path}.${Buffer.from(random.bytes(6)).toString('hex')}.new`;
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
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
