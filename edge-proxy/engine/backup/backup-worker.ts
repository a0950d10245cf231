/** A worker thread of a backup: claims segments from a shared counter until none is left. */

import { randomFillSync } from 'node:crypto';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { type ErrorReport, HoldfastError, reportOf } from '#contract/errors.ts';
import { ChunkNamer } from '#repository/chunk.ts';
import { Cutter } from '#repository/cut.ts';
import { decodeKeys } from '#repository/keys.ts';
import { Sealer } from '#repository/seal.ts';
import type { DiskReader } from '../../sources/disk.ts';
import { openDiskReader } from '../../sources/open-disk.ts';
import { type IndexCopy, KnownChunks } from '../known-chunks.ts';
import { Meter } from '../stages.ts';
import { ChunkWriter } from './chunk-writer.ts';
import { ChunkClaims } from './claims.ts';
import { PackPool, type PackPoolMemory } from './pack-pool.ts';
import { type FilledBuffer, Packer } from './packer.ts';
import { SegmentBackup } from './segment-backup.ts';
import type { DiskPlan, UnitResult } from './unit.ts';

export interface BackupWorkerData {
  readonly worker: number;
  /** {@link encodeKeys}; overwritten by the worker once read. */
  readonly keys: Uint8Array;
  readonly disks: readonly DiskPlan[];
  /** Pairs of disk and segment, in the order of work. */
  readonly units: Uint32Array;
  /** Words of {@link CONTROL}. */
  readonly control: SharedArrayBuffer;
  readonly claims: SharedArrayBuffer;
  readonly index: readonly IndexCopy[];
  readonly pool: PackPoolMemory;
  readonly packBytes: number;
  readonly meters: SharedArrayBuffer;
}

/** Words of the control block that the main thread and its workers share. */
export const CONTROL = { nextUnit: 0, stop: 1, level: 2, checkPermille: 3, pause: 4, words: 8 } as const;

export type FromBackupWorker =
  | { readonly type: 'filled'; readonly filled: FilledBuffer }
  | { readonly type: 'unit'; readonly result: UnitResult }
  /** Has handed on all it sealed and sleeps until `resume`. */
  | { readonly type: 'paused' }
  | { readonly type: 'finished' }
  | { readonly type: 'failed'; readonly error: ErrorReport };

/** Sent with `resume`: what was claimed so far is now in this index copy. */
export type ToBackupWorker = { readonly type: 'resume'; readonly copy?: IndexCopy };

if (parentPort !== null) await main(workerData as BackupWorkerData, parentPort);

async function main(data: BackupWorkerData, port: NonNullable<typeof parentPort>): Promise<void> {
  const send = (message: FromBackupWorker, transfer: ArrayBuffer[] = []) => port.postMessage(message, transfer);
  const control = new Int32Array(data.control);
  const stopped = () => Atomics.load(control, CONTROL.stop) === 1;
  const random = poolOfRandom();
  const keys = decodeKeys(data.keys);
  data.keys.fill(0);
  const meter = new Meter(data.meters, data.worker, () => performance.now());
  const known = new KnownChunks(data.index);
  const packer = new Packer(new PackPool(data.pool), data.packBytes, stopped, (filled) =>
    send({ type: 'filled', filled }),
  );
  const writer = new ChunkWriter({
    namer: new ChunkNamer(keys.idKey),
    sealer: new Sealer(keys, random),
    claims: new ChunkClaims(data.claims),
    known,
    packer,
    meter,
    random,
    level: () => Atomics.load(control, CONTROL.level),
    checkShare: () => Atomics.load(control, CONTROL.checkPermille) / 1000,
  });
  const readers = [];
  try {
    for (const plan of data.disks) readers.push({ plan, reader: await openPlanned(plan) });
    const backup = new SegmentBackup(readers, new Cutter(keys.cutKey), writer, meter);
    const count = data.units.length / 2;
    for (;;) {
      if (Atomics.load(control, CONTROL.pause) === 1) pause(port, control, packer, known, send);
      const unit = stopped() ? count : Atomics.add(control, CONTROL.nextUnit, 1);
      if (unit >= count) break;
      const result = await backup.run(data.units[unit * 2]!, data.units[unit * 2 + 1]!);
      send({ type: 'unit', result });
    }
    packer.flush();
    backup.close();
    send({ type: 'finished' });
  } catch (error) {
    if (!stopped()) send({ type: 'failed', error: reportOf(error) });
  } finally {
    known[Symbol.dispose]();
    await Promise.allSettled(readers.map(({ reader }) => reader.close()));
    port.unref();
  }
}

/** Opens a disk, which may have shrunk since the plan was made. */
async function openPlanned(plan: DiskPlan): Promise<DiskReader> {
  const reader = await openDiskReader(plan.locator);
  if (reader.sizeBytes >= plan.sizeBytes) return reader;
  await reader.close();
  const name = plan.locator.kind === 'file' ? plan.locator.path : 'The disk';
  throw new HoldfastError(
    'source-changed',
    `${name} had ${plan.sizeBytes} bytes when the backup began and has now ${reader.sizeBytes}`,
    { remedy: 'Back it up again once its size no longer changes' },
  );
}

/** Hands on what is sealed and sleeps until the main thread has written the session's index so far. */
function pause(
  port: NonNullable<typeof parentPort>,
  control: Int32Array,
  packer: Packer,
  known: KnownChunks,
  send: (message: FromBackupWorker) => void,
): void {
  packer.flush();
  send({ type: 'paused' });
  Atomics.wait(control, CONTROL.pause, 1);
  for (let received = receiveMessageOnPort(port); received; received = receiveMessageOnPort(port)) {
    const { copy } = received.message as ToBackupWorker;
    if (copy) known.add(copy);
  }
}

/** Nonces come from one buffer filled at a time: a call into the system's generator for each costs more than the nonce. */
function poolOfRandom() {
  const pool = new Uint8Array(12_288);
  let used = pool.length;
  return {
    bytes(length: number): Uint8Array {
      if (used + length > pool.length) {
        randomFillSync(pool);
        used = 0;
      }
      used += length;
      return pool.slice(used - length, used);
    },
    fraction: () => Math.random(),
  };
}
