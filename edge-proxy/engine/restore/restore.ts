import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { HoldfastError } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import type { Image } from '#repository/image.ts';
import type { Point } from '#repository/point.ts';
import { sha256 } from '#repository/sha256.ts';
import type { DiskLocator, DiskWriter } from '../../sources/disk.ts';
import { openDiskWriter } from '../../sources/open-disk.ts';
import { isLoss } from '../loss.ts';
import { Pace } from '../pace.ts';
import { reportProgress } from '../progress.ts';
import type { EngineContext, Phase, RestoreRequest, RestoreResult } from '../request.ts';
import { readMeters } from '../stages.ts';
import { openReading, readPoint, type VaultReading, vaultFolder } from '../vault-reading.ts';
import { RestoreJournal } from './restore-journal.ts';
import { planWindow, type RestoreWindow, windowsOf } from './restore-plan.ts';
import { RestoreRun } from './restore-run.ts';
import type { WorkerTarget } from './restore-worker.ts';

/** A crash loses at most this much of a restore's work. */
const WINDOW_BYTES = 512 * 1024 * 1024;
/** A stream is written in order, so its windows are in memory: two of these. */
const STREAM_WINDOW_BYTES = 64 * 1024 * 1024;

/**
 * Restores one disk of a point: every chunk is checked against its id before a byte of it is written.
 * Throws `damaged` or `missing` naming the point, the disk and the bytes that cannot be restored.
 */
export async function runRestore(request: RestoreRequest, context: EngineContext): Promise<RestoreResult> {
  const { vault, target } = request;
  const point = await readPoint(vault, request.machine, request.point);
  const image = imageOf(point, request.diskIndex);
  const reading = await openReading(vault, await vault.state.generation(), context, true);
  using _known = reading.known;
  try {
    if (target.kind === 'stream') return await restoreToStream(request, context, point, image, reading, target.output);
    return await restoreToDisk(request, context, point, image, reading, target);
  } catch (error) {
    throw nameLoss(error, point, request.diskIndex, image, reading);
  }
}

/** Reads everything a disk of a point needs and checks it, writing it nowhere. */
export async function checkDisk(
  request: Omit<RestoreRequest, 'target'>,
  context: EngineContext,
): Promise<RestoreResult> {
  const point = await readPoint(request.vault, request.machine, request.point);
  const image = imageOf(point, request.diskIndex);
  const reading = await openReading(request.vault, await request.vault.state.generation(), context, true);
  using _known = reading.known;
  const windows = [...windowsOf(image, WINDOW_BYTES)];
  try {
    return await inRun(
      { request, context, point, image, reading, target: { kind: 'none' }, phase: 'verifying', resumedBytes: 0 },
      async (run) => {
        await eachWindow(windows, image, reading, async (plan) => await run.window(plan, 0, 0));
      },
    );
  } catch (error) {
    throw nameLoss(error, point, request.diskIndex, image, reading);
  }
}

function imageOf(point: Point, diskIndex: number): Image {
  const disk = point.facts.disks[diskIndex];
  if (disk === undefined) {
    throw new HoldfastError(
      'not-found',
      `Point ${point.facts.point} has ${point.facts.disks.length} disk(s); there is no disk ${diskIndex}`,
      {
        remedy: `Give a disk index from 0 to ${point.facts.disks.length - 1}`,
      },
    );
  }
  return { root: disk.root === null ? null : Buffer.from(disk.root, 'hex'), sizeBytes: disk.sizeBytes };
}

async function restoreToDisk(
  request: RestoreRequest,
  context: EngineContext,
  point: Point,
  image: Image,
  reading: VaultReading,
  locator: DiskLocator,
): Promise<RestoreResult> {
  const rollback = request.rollback ?? false;
  const name = sha256(Buffer.from(JSON.stringify([locator, request.diskIndex])));
  const journal = await RestoreJournal.open(
    join(vaultFolder(context, request.vault), 'restores', name.toString('hex').slice(0, 32)),
    JSON.stringify([point.facts.point, request.diskIndex, locator, rollback]),
  );
  // What others can write to (a device, an export, a disk that is rolled back) may have changed since.
  const resume = journal.done.size > 0 && !rollback && (await isStillThere(locator, image.sizeBytes));
  if (!resume) {
    await journal.forget();
    if (!rollback) await removeFile(locator);
  }
  const writer = await openDiskWriter(locator, rollback || resume ? {} : { createSizeBytes: image.sizeBytes });
  try {
    if (writer.sizeBytes < image.sizeBytes) {
      throw new HoldfastError(
        'target-failed',
        `The target has ${writer.sizeBytes} bytes; the disk needs ${image.sizeBytes}`,
        { remedy: 'Give a target of at least the disk’s size' },
      );
    }
    const windows = [...windowsOf(image, WINDOW_BYTES)];
    const left = windows.map((window, index) => ({ ...window, index })).filter(({ index }) => !journal.done.has(index));
    const resumedBytes = Math.min(image.sizeBytes, (windows.length - left.length) * WINDOW_BYTES);
    // The file of an interrupted restore was new when it began: what was not written yet is still zero.
    const startsZero = writer.startsZero || request.freshTarget === true || resume;
    const target: WorkerTarget = { kind: 'disk', locator, rollback, startsZero };
    const result = await inRun(
      { request, context, point, image, reading, target, phase: 'restoring', resumedBytes },
      async (run) => {
        // A target that is made anew for each attempt has no later one to tell anything.
        const flushes = new Flusher(writer, request.freshTarget === true ? undefined : journal);
        await eachWindow(left, image, reading, async (plan, { index }) => {
          await run.window(plan, 0, 0);
          // Of a window that is all hole there is nothing to lose.
          if (plan.fetches.length > 0 || !startsZero) flushes.add(index);
        });
        await run.finish();
        await flushes.settle();
      },
    );
    await journal.finish();
    return result;
  } finally {
    await writer.close();
  }
}

/** A restore replaces a file as a whole: nothing of an older one may shine through. Devices stay. */
async function removeFile(locator: DiskLocator): Promise<void> {
  if (locator.kind !== 'file') return;
  const held = await stat(locator.path).catch(() => undefined);
  if (held?.isFile()) await rm(locator.path);
}

/** True if the target is the file of an interrupted restore. */
async function isStillThere(locator: DiskLocator, sizeBytes: number): Promise<boolean> {
  if (locator.kind !== 'file') return false;
  const held = await stat(locator.path).catch(() => undefined);
  return held?.isFile() === true && held.size === sizeBytes;
}

/** Makes finished windows durable in the background and writes them down. */
class Flusher {
  readonly #writer: DiskWriter;
  readonly #journal: RestoreJournal | undefined;
  #queue: Promise<void> = Promise.resolve();

  constructor(writer: DiskWriter, journal: RestoreJournal | undefined) {
    this.#writer = writer;
    this.#journal = journal;
  }

  add(window: number): void {
    this.#queue = this.#queue.then(async () => {
      await this.#writer.flush();
      await this.#journal?.add(window);
    });
    this.#queue.catch(() => undefined); // comes out of settle()
  }

  async settle(): Promise<void> {
    await this.#queue;
  }
}

async function restoreToStream(
  request: RestoreRequest,
  context: EngineContext,
  point: Point,
  image: Image,
  reading: VaultReading,
  output: NodeJS.WritableStream,
): Promise<RestoreResult> {
  const memory = [0, 1].map(() => new SharedArrayBuffer(STREAM_WINDOW_BYTES));
  const windows = [...windowsOf(image, STREAM_WINDOW_BYTES)].map((window, index) => ({ ...window, index }));
  return await inRun(
    {
      request,
      context,
      point,
      image,
      reading,
      target: { kind: 'memory', windows: memory },
      phase: 'restoring',
      resumedBytes: 0,
    },
    async (run) => {
      let written: Promise<void> = Promise.resolve();
      await eachWindow(windows, image, reading, async (plan, { index }) => {
        const slot = index % 2;
        await run.window(plan, slot, plan.offset);
        await written; // the other window is free again
        written = writeAll(output, Buffer.from(memory[slot]!, 0, plan.length));
        written.catch(() => undefined);
      });
      await written;
    },
  );
}

/** Resolves when the stream has taken the bytes for good, so that the memory may be used again. */
function writeAll(output: NodeJS.WritableStream, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    output.write(bytes, (error) => {
      if (!error) return resolve();
      reject(
        new HoldfastError('target-failed', `The output could not be written: ${error.message}`, {
          cause: error,
          remedy: 'Check what reads the output',
        }),
      );
    });
  });
}

/** Plans each window while the one before it is being restored. */
async function eachWindow<W extends { readonly from: number; readonly to: number }>(
  windows: readonly W[],
  image: Image,
  reading: VaultReading,
  restore: (plan: RestoreWindow, window: W) => Promise<void>,
): Promise<void> {
  const planOf = (window: W | undefined) => {
    const plan = window && planWindow(image, window.from, window.to, reading.reader);
    plan?.catch(() => undefined); // comes out when its turn comes
    return plan;
  };
  let next = planOf(windows[0]);
  for (const [i, window] of windows.entries()) {
    const plan = await next!;
    next = planOf(windows[i + 1]);
    await restore(plan, window);
  }
}

interface RunParts {
  readonly request: Omit<RestoreRequest, 'target'>;
  readonly context: EngineContext;
  readonly point: Point;
  readonly image: Image;
  readonly reading: VaultReading;
  readonly target: WorkerTarget;
  readonly phase: Phase;
  readonly resumedBytes: number;
}

async function inRun(parts: RunParts, work: (run: RestoreRun) => Promise<void>): Promise<RestoreResult> {
  const { request, context, point, image, reading, resumedBytes } = parts;
  const startMs = context.clock.monotonicMs();
  const stop = new AbortController();
  const onAbort = () => stop.abort(context.signal?.reason);
  context.signal?.throwIfAborted();
  context.signal?.addEventListener('abort', onAbort, { once: true });
  const run = new RestoreRun(
    request.vault.blobs,
    request.vault.keys,
    reading.reader,
    parts.target,
    new Pace(context.clock, context.bytesPerSecond),
    context.workers,
    stop.signal,
  );
  const done = () => {
    const { counters } = readMeters(run.meters);
    return counters.written + counters.zero + counters.unchanged;
  };
  const source = {
    phase: () => parts.phase,
    doneBytes: () => resumedBytes + done(),
    totalBytes: image.sizeBytes,
    transferredBytes: () => run.fetchedBytes,
    meters: run.meters,
  };
  const reports = context.onProgress && reportProgress(source, context.clock, stop.signal, context.onProgress);
  try {
    await work(run);
    const { counters } = readMeters(run.meters);
    return {
      point: point.facts.point,
      diskIndex: request.diskIndex,
      sizeBytes: image.sizeBytes,
      stats: {
        writtenBytes: counters.written,
        zeroBytes: counters.zero,
        unchangedBytes: counters.unchanged,
        fetchedBytes: run.fetchedBytes + reading.reader.fetchedBytes,
        resumedBytes,
        seconds: (context.clock.monotonicMs() - startMs) / 1000,
      },
    };
  } finally {
    context.signal?.removeEventListener('abort', onAbort);
    stop.abort(new Error('stopped'));
    await run.terminate();
    await reports;
  }
}

/** Says which bytes of which disk of which point are lost: the whole disk, where no smaller range is known. */
function nameLoss(error: unknown, point: Point, diskIndex: number, image: Image, reading: VaultReading): unknown {
  if (!isLoss(error)) return error;
  const id: Id<'point'> = point.facts.point;
  const { offset = 0, length = image.sizeBytes } = error.data as { readonly offset?: number; readonly length?: number };
  const why = error.code === 'missing' ? reading.lostIndex.map((lost) => `; ${lost.message}`).join('') : '';
  return new HoldfastError(
    error.code,
    `Point ${id}, disk ${diskIndex}, bytes ${offset} to ${offset + length - 1}: ${error.message}${why}`,
    {
      cause: error,
      data: { ...error.data, point: id, diskIndex, offset, length },
      remedy:
        'Nothing wrong was written. Restore another point, or see with `vault verify --read-data` what else is affected',
    },
  );
}
