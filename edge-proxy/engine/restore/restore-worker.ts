/** A worker thread of a restore: opens chunks, checks them against their ids and writes them where they belong. */

import { parentPort, workerData } from 'node:worker_threads';
import { type ErrorReport, HoldfastError, reportOf } from '#contract/errors.ts';
import { ChunkNamer } from '#repository/chunk.ts';
import { freeBuffer } from '#repository/free-buffer.ts';
import { decodeKeys } from '#repository/keys.ts';
import { Sealer } from '#repository/seal.ts';
import type { DiskLocator } from '../../sources/disk.ts';
import { openDiskWriter } from '../../sources/open-disk.ts';
import { Meter } from '../stages.ts';
import type { Placement, WantedChunk } from './restore-plan.ts';
import { DiffWriter, DiskSink, MemorySink, NoSink, type Sink } from './restore-sink.ts';

export interface RestoreWorkerData {
  readonly worker: number;
  readonly keys: Uint8Array;
  readonly target: WorkerTarget;
  readonly meters: SharedArrayBuffer;
}

export type WorkerTarget =
  /** `rollback`: write only what differs. `startsZero`: zeros need no write. */
  | { readonly kind: 'disk'; readonly locator: DiskLocator; readonly rollback: boolean; readonly startsZero: boolean }
  /** Windows in memory; each task says which and where on the disk it begins. */
  | { readonly kind: 'memory'; readonly windows: readonly SharedArrayBuffer[] }
  /** Nowhere: everything is opened and checked. */
  | { readonly kind: 'none' };

export type ToRestoreWorker =
  | {
      readonly type: 'chunks';
      readonly task: number;
      readonly window: number;
      readonly base: number;
      readonly bytes: Uint8Array;
      readonly chunks: readonly WantedChunk[];
    }
  | {
      readonly type: 'zeros';
      readonly task: number;
      readonly window: number;
      readonly base: number;
      readonly zeros: readonly { readonly offset: number; readonly length: number }[];
    }
  /** A chunk that the main thread opened and checked. */
  | {
      readonly type: 'plain';
      readonly task: number;
      readonly window: number;
      readonly base: number;
      readonly content: Uint8Array;
      readonly placements: readonly Placement[];
    }
  | { readonly type: 'end' };

export type FromRestoreWorker =
  /** `bad`: chunks of the task that are not what they must be, by their position in it. */
  | {
      readonly type: 'done';
      readonly task: number;
      readonly bad: readonly { readonly chunk: number; readonly error: ErrorReport }[];
    }
  | { readonly type: 'finished' }
  | { readonly type: 'failed'; readonly error: ErrorReport };

if (parentPort !== null) await main(workerData as RestoreWorkerData, parentPort);

async function main(data: RestoreWorkerData, port: NonNullable<typeof parentPort>): Promise<void> {
  const send = (message: FromRestoreWorker) => port.postMessage(message);
  const keys = decodeKeys(data.keys);
  data.keys.fill(0);
  const meter = new Meter(data.meters, data.worker, () => performance.now());
  const sealer = new Sealer(keys, { bytes: () => new Uint8Array(0), fraction: () => 0 }); // opens only
  const namer = new ChunkNamer(keys.idKey);
  const sink = await openSink(data.target, meter).catch(
    (error: unknown) => void send({ type: 'failed', error: reportOf(error) }),
  );
  if (sink === undefined) return;

  const open = (bytes: Uint8Array, chunk: WantedChunk): Buffer => {
    const { header, content } = sealer.open(bytes.subarray(chunk.at, chunk.at + chunk.length));
    if (!header.id.equals(chunk.id) || !namer.matches('data', content, chunk.id)) {
      throw new HoldfastError('damaged', 'A chunk’s content is not what its id names');
    }
    return content;
  };

  const put = async (
    { window, base }: { readonly window: number; readonly base: number },
    content: Buffer,
    placements: readonly Placement[],
  ) => {
    for (const { diskOffset, chunkOffset, length } of placements) {
      if (chunkOffset + length > content.length)
        throw new HoldfastError('damaged', 'A map reaches beyond the end of a chunk', {
          data: { offset: diskOffset, length },
        });
      const writing = sink.write(
        window,
        diskOffset - base,
        diskOffset,
        content.subarray(chunkOffset, chunkOffset + length),
      );
      if (writing) await writing;
    }
  };

  const run = async (message: Exclude<ToRestoreWorker, { type: 'end' }>): Promise<void> => {
    meter.start();
    const bad: { chunk: number; error: ErrorReport }[] = [];
    if (message.type === 'zeros') {
      for (const { offset, length } of message.zeros)
        await sink.zero(message.window, offset - message.base, offset, length);
      meter.mark('write');
    } else if (message.type === 'plain') await put(message, Buffer.from(message.content), message.placements);
    else {
      for (const [index, chunk] of message.chunks.entries()) {
        let content: Buffer;
        try {
          content = open(message.bytes, chunk);
        } catch (error) {
          bad.push({ chunk: index, error: reportOf(error) });
          continue;
        }
        meter.mark('open');
        await put(message, content, chunk.placements);
        freeBuffer(content);
        meter.mark('write');
      }
      // Gives the fetched bytes back at once instead of at some later garbage collection.
      (message.bytes.buffer as ArrayBuffer).transfer(0);
    }
    send({ type: 'done', task: message.task, bad });
  };

  let queue = Promise.resolve();
  port.on('message', (message: ToRestoreWorker) => {
    queue = queue
      .then(async () => {
        if (message.type !== 'end') return await run(message);
        await sink.close();
        send({ type: 'finished' });
        port.close();
      })
      .catch((error: unknown) => send({ type: 'failed', error: reportOf(error) }));
  });
}

async function openSink(target: WorkerTarget, meter: Meter): Promise<Sink> {
  if (target.kind === 'none') return new NoSink(meter);
  if (target.kind === 'memory') return new MemorySink(target.windows, meter);
  const writer = await openDiskWriter(target.locator);
  return target.rollback ? new DiffWriter(writer, meter) : new DiskSink(writer, target.startsZero, meter);
}
