import { join } from 'node:path';
import { ChunkNamer } from '#repository/chunk.ts';
import { resolveLeaf } from '#repository/image.ts';
import { encodeIndexSegment, IndexEntries, IndexSegmentReader } from '#repository/index-segment.ts';
import { encodeKeys } from '#repository/keys.ts';
import { decodeLeaf, encodeLeaf, type LeafFacts, overlayRuns } from '#repository/leaf.ts';
import { indexKey, packKey } from '#repository/names.ts';
import { parsePackFooter } from '#repository/pack.ts';
import { SEGMENT_BYTES } from '#repository/parameters.ts';
import { Sealer } from '#repository/seal.ts';
import { sha256 } from '#repository/sha256.ts';
import type { SegmentRef, Session } from '#repository/state.ts';
import { openIndexCopy, writeIndexCopy } from '../index-copies.ts';
import type { IndexCopy } from '../known-chunks.ts';
import { Pace } from '../pace.ts';
import { reportProgress } from '../progress.ts';
import type { BackupStats, EngineContext, OpenVault, Phase } from '../request.ts';
import { allocateMeters, readMeters } from '../stages.ts';
import { type VaultReading, vaultFolder } from '../vault-reading.ts';
import { Crew } from '../worker-threads.ts';
import { type BackupWorkerData, CONTROL, type FromBackupWorker, type ToBackupWorker } from './backup-worker.ts';
import { allocateClaims, ChunkClaims } from './claims.ts';
import { Journal, type JournaledPack } from './journal.ts';
import { NodeWriter } from './node-writer.ts';
import { allocatePackPool, PackPool } from './pack-pool.ts';
import type { FilledBuffer } from './packer.ts';
import type { PlannedDisk } from './plan.ts';
import { Tuner } from './tuner.ts';
import type { LeafTable, UnitResult } from './unit.ts';
import { UPLOADS_AT_ONCE, Uploader } from './uploader.ts';

const PACK_BYTES = 24 * 1024 * 1024;
/** All packs in memory together; with many workers each pack is smaller. */
const PACKS_TOTAL_BYTES = 128 * 1024 * 1024;
const PACK_MIN_BYTES = 2 * 1024 * 1024;
/** With a bandwidth limit a pack takes about this long, so that the average holds over any minute. */
const PACK_SECONDS = 4;
/** Chunks a session may claim before its index so far is written out: 20 MiB of table. */
const CLAIM_SLOTS = 2 ** 20;
const RENEW_MS = 60_000;
const HEADS_AT_ONCE = 16;

export interface BackupRunParts {
  readonly vault: OpenVault;
  readonly session: Session;
  readonly context: EngineContext;
  readonly planned: readonly PlannedDisk[];
  readonly reading: VaultReading;
  readonly journalPath: string;
  readonly workers: number;
}

/** The moving parts of one backup, from the first read to the last pack. */
export class BackupRun {
  readonly #parts: BackupRunParts;
  readonly #stop = new AbortController();
  readonly #control = new Int32Array(new SharedArrayBuffer(CONTROL.words * 4));
  readonly #meters: SharedArrayBuffer;
  readonly #claimsMemory: SharedArrayBuffer;
  readonly #claims: ChunkClaims;
  readonly #pool: PackPool;
  readonly #journal: Journal;
  readonly #uploader: Uploader;
  readonly #nodes: NodeWriter;
  readonly #copies: IndexCopy[];
  readonly #segments: SegmentRef[] = [];
  readonly #merges = new Set<Promise<void>>();
  #crew: Crew<BackupWorkerData, FromBackupWorker> | undefined;
  readonly #crewData: Omit<BackupWorkerData, 'worker' | 'keys' | 'index' | 'units'>;
  readonly #journaled: readonly JournaledPack[];
  #phase: Phase = 'preparing';
  #doneBytes = 0;
  #paused = 0;
  #checkpointing = false;
  #failure: unknown;
  #background: Promise<unknown> = Promise.resolve();

  constructor(parts: BackupRunParts) {
    this.#parts = parts;
    const { vault, context, workers, reading } = parts;
    const buffers = workers + UPLOADS_AT_ONCE;
    const paced =
      context.bytesPerSecond === undefined
        ? PACK_BYTES
        : Math.max(PACK_MIN_BYTES, context.bytesPerSecond * PACK_SECONDS);
    const packBytes = Math.floor(Math.min(PACK_BYTES, PACKS_TOTAL_BYTES / buffers, paced));
    const pool = allocatePackPool(buffers, packBytes);
    this.#pool = new PackPool(pool);
    this.#meters = allocateMeters(workers);
    this.#claimsMemory = allocateClaims(CLAIM_SLOTS);
    this.#claims = new ChunkClaims(this.#claimsMemory);
    this.#copies = [...reading.copies];
    const opened = Journal.open(parts.journalPath);
    this.#journal = opened.journal;
    this.#journaled = opened.packs;
    this.#uploader = new Uploader(
      vault.blobs,
      this.#journal,
      context.random,
      new Pace(context.clock, context.bytesPerSecond),
      this.#stop.signal,
    );
    const sealer = new Sealer(vault.keys, context.random);
    this.#nodes = new NodeWriter(new ChunkNamer(vault.keys.idKey), sealer, this.#claims, reading.known, (chunks) =>
      this.#uploader.send(
        chunks,
        () => undefined,
        (error) => this.#fail(error),
      ),
    );
    this.#crewData = {
      disks: parts.planned.map(({ plan }) => plan),
      control: this.#control.buffer as SharedArrayBuffer,
      claims: this.#claimsMemory,
      pool,
      packBytes,
      meters: this.#meters,
    };
  }

  /** Reads everything planned; returns when each segment's outcome is known. */
  async readAll(): Promise<void> {
    const { context, planned, vault, workers } = this.#parts;
    context.signal?.addEventListener('abort', this.#onAbort, { once: true });
    context.signal?.throwIfAborted();
    await this.#adoptJournaled();
    this.#background = Promise.all([this.#watch(), this.#renewLease()]);
    const units = unitsOf(planned);
    this.#phase = 'reading';
    const count = Math.max(1, Math.min(workers, units.length / 2));
    const datas = Array.from({ length: count }, (_, worker) => ({
      ...this.#crewData,
      worker,
      keys: encodeKeys(vault.keys),
      index: this.#copies,
      units,
    }));
    this.#crew = new Crew(new URL('./backup-worker.ts', import.meta.url), datas, (message) => this.#take(message));
    if (this.#failure !== undefined) throw this.#failure;
    await this.#crew.finished();
    while (this.#merges.size > 0) await this.#crew.unlessFailed(Promise.all(this.#merges));
    this.#phase = 'uploading';
  }

  /** Builds the image tree of each disk over its table of leaves. */
  async buildTrees(
    build: (table: LeafTable, store: (content: Buffer, children: Buffer) => Promise<Buffer>) => Promise<Buffer | null>,
  ): Promise<(Buffer | null)[]> {
    const roots: (Buffer | null)[] = [];
    for (const { table } of this.#parts.planned)
      roots.push(await build(table, async (content, children) => this.#nodes.write(content, children)));
    return roots;
  }

  /** Waits for the last pack and publishes the index of all that was sent. */
  async publish(): Promise<readonly SegmentRef[]> {
    this.#nodes.flush();
    await this.#uploader.settle();
    this.#phase = 'committing';
    await this.#writeIndexSegment();
    this.#parts.context.signal?.throwIfAborted();
    return this.#segments;
  }

  /** The point exists: the journal has done its duty. */
  async finish(): Promise<void> {
    this.#journal.finish();
    this.#phase = 'done';
  }

  stats(seconds: number): BackupStats {
    const { counters, seconds: stageSeconds } = readMeters(this.#meters);
    return {
      diskBytes: this.#parts.planned.reduce((sum, { disk }) => sum + disk.sizeBytes, 0),
      readBytes: counters.read,
      newBytes: counters.new,
      sentBytes: this.#uploader.sentBytes + this.#segments.reduce((sum, segment) => sum + segment.sizeBytes, 0),
      newChunks: counters.newChunks,
      knownChunks: counters.knownChunks,
      seconds,
      stageSeconds,
    };
  }

  /** Stops everything that still runs. */
  async close(): Promise<void> {
    this.#parts.context.signal?.removeEventListener('abort', this.#onAbort);
    Atomics.store(this.#control, CONTROL.stop, 1);
    this.#pool.wake();
    this.#resume({ type: 'resume' });
    this.#stop.abort(new Error('stopped'));
    await this.#crew?.terminate();
    await this.#uploader.settle().catch(() => undefined);
    await this.#background.catch(() => undefined);
    if (this.#phase !== 'done') this.#journal.close();
  }

  readonly #onAbort = () => {
    const reason: unknown = this.#parts.context.signal?.reason;
    this.#fail(reason);
    // The last packs may be waiting for a store that is gone, with much patience.
    this.#stop.abort(reason);
  };

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#crew?.fail(error);
  }

  #take(message: Exclude<FromBackupWorker, { type: 'finished' | 'failed' }>): void {
    if (message.type === 'filled') this.#send(message.filled);
    else if (message.type === 'paused') this.#paused++;
    else this.#settleUnit(message.result);
    if (this.#checkpointing === false && this.#claims.count > this.#claims.capacity * 0.7) {
      this.#checkpointing = true;
      const checkpoint = this.#checkpoint()
        .catch((error: unknown) => this.#fail(error))
        .finally(() => {
          this.#checkpointing = false;
          this.#merges.delete(checkpoint);
        });
      this.#merges.add(checkpoint);
    }
  }

  #send({ buffer, places, hashes }: FilledBuffer): void {
    const memory = this.#pool.buffer(buffer);
    const none = new Uint8Array(0);
    const chunks = Array.from({ length: places.length / 2 }, (_, i) => ({
      bytes: memory.subarray(places[i * 2]!, places[i * 2]! + places[i * 2 + 1]!),
      sha256: hashes.subarray(i * 32, i * 32 + 32),
      children: none,
    }));
    this.#uploader.send(
      chunks,
      () => this.#pool.release(buffer),
      (error) => this.#fail(error),
    );
  }

  #settleUnit({ disk, segment, outcome, fingerprints }: UnitResult): void {
    const { table, state, plan } = this.#parts.planned[disk]!;
    this.#doneBytes += Math.min(SEGMENT_BYTES, plan.sizeBytes - segment * SEGMENT_BYTES);
    if (fingerprints) state.log(fingerprints);
    if (outcome.kind === 'zero') table.setZero(segment);
    if (outcome.kind !== 'leaf') return;
    if (!outcome.merge) {
      table.setLeaf(segment, this.#nodes.write(outcome.content, outcome.children), outcome.facts);
      return;
    }
    const merge = this.#mergeLeaf(table, segment, Buffer.from(outcome.content), outcome.facts)
      .catch((error: unknown) => this.#fail(error))
      .finally(() => this.#merges.delete(merge));
    this.#merges.add(merge);
  }

  /** A chain of deltas has reached its bound: writes the segment's map whole. */
  async #mergeLeaf(table: LeafTable, segment: number, content: Buffer, facts: LeafFacts): Promise<void> {
    const delta = decodeLeaf(content);
    if (delta.type !== 'delta') throw new Error('only deltas are merged');
    const base = await resolveLeaf(delta.base, (id) => this.#parts.reading.reader.read(id));
    const whole = { ...facts, depth: 0 };
    const leaf = encodeLeaf({ type: 'full', ...whole, runs: overlayRuns(base.runs, delta.runs) });
    table.setLeaf(segment, this.#nodes.write(leaf.content, leaf.children), whole);
  }

  /** Finds which packs of an interrupted session arrived, and takes them as this session's own. */
  async #adoptJournaled(): Promise<void> {
    if (this.#journaled.length === 0) return;
    // Of a session that ended right after its commit the index has the packs: naming them again would only swell it.
    const indexed = indexedPacks(this.#copies);
    const journaled = this.#journaled.filter(({ pack }) => !indexed.has(pack.id.toString('hex')));
    for (let at = 0; at < journaled.length; at += HEADS_AT_ONCE) {
      const group = journaled.slice(at, at + HEADS_AT_ONCE);
      const heads = await Promise.all(group.map(({ pack }) => this.#parts.vault.blobs.head(packKey(pack.id))));
      group.forEach(({ pack, footer }, i) => {
        if (heads[i]?.sizeBytes !== pack.sizeBytes) return;
        const ordinal = this.#uploader.entries.addPack(pack);
        parsePackFooter(footer, pack.footerOffset, sha256(footer)).forEach((slot, number) => {
          this.#uploader.entries.add(slot.id, ordinal, number);
          this.#claims.claim(Buffer.from(slot.id));
        });
      });
      if (this.#claims.count > this.#claims.capacity / 2) await this.#indexClaims();
    }
  }

  /** Stops the workers between two segments, writes the session's index so far and lets them go on with an empty table. */
  async #checkpoint(): Promise<void> {
    const { clock } = this.#parts.context;
    this.#paused = 0;
    Atomics.store(this.#control, CONTROL.pause, 1);
    while (this.#paused < this.#crew!.unfinished) await clock.sleep(5, this.#stop.signal);
    this.#nodes.flush();
    await this.#uploader.settle();
    const copy = await this.#indexClaims();
    this.#resume({ type: 'resume', copy });
  }

  async #indexClaims(): Promise<IndexCopy> {
    const path = await this.#writeIndexSegment();
    const copy = await openIndexCopy(path!);
    this.#parts.reading.known.add(copy);
    this.#copies.push(copy);
    this.#claims.clear();
    return copy;
  }

  #resume(message: ToBackupWorker): void {
    if (message.copy) this.#crew?.post(message);
    Atomics.store(this.#control, CONTROL.pause, 0);
    Atomics.notify(this.#control, CONTROL.pause);
  }

  /** Publishes the entries gathered so far as a segment and keeps a copy; answers the copy's path. */
  async #writeIndexSegment(): Promise<string | undefined> {
    const entries = this.#uploader.entries;
    if (entries.count === 0) return undefined;
    this.#uploader.entries = new IndexEntries();
    const { vault, session, context } = this.#parts;
    const bytes = encodeIndexSegment(entries);
    const key = indexKey(session.generation.number + 1, context.random.bytes(16));
    await vault.blobs.putIfAbsent(key, [bytes], { signal: this.#stop.signal });
    this.#segments.push({ key, sizeBytes: bytes.length });
    const path = join(vaultFolder(context, vault), 'index', key.slice(key.lastIndexOf('/') + 1));
    await writeIndexCopy(path, bytes, context.random);
    return path;
  }

  async #watch(): Promise<void> {
    const { context, planned, workers } = this.#parts;
    const tuner = new Tuner(this.#meters, workers, (level, checkPermille) => {
      Atomics.store(this.#control, CONTROL.level, level);
      Atomics.store(this.#control, CONTROL.checkPermille, checkPermille);
    });
    const source = {
      phase: () => this.#phase,
      doneBytes: () => this.#doneBytes,
      totalBytes: planned.reduce((sum, disk) => sum + segmentBytes(disk), 0),
      transferredBytes: () => this.#uploader.sentBytes,
      meters: this.#meters,
    };
    await reportProgress(source, context.clock, this.#stop.signal, (progress) => {
      tuner.adjust(context.clock.monotonicMs());
      context.onProgress?.(progress);
    });
  }

  async #renewLease(): Promise<void> {
    const { context, vault, session } = this.#parts;
    while (!this.#stop.signal.aborted) {
      await context.clock.sleep(RENEW_MS, this.#stop.signal).catch(() => undefined);
      if (this.#stop.signal.aborted || this.#phase === 'committing') return;
      await vault.state.renew(session).catch((error: unknown) => this.#fail(error));
    }
  }
}

function indexedPacks(copies: readonly IndexCopy[]): ReadonlySet<string> {
  const ids = new Set<string>();
  for (const { head } of copies) {
    const reader = new IndexSegmentReader(head, () => undefined);
    for (let i = 0; i < reader.packCount; i++) ids.add(reader.packAt(i).id.toString('hex'));
  }
  return ids;
}

function segmentBytes({ segments, plan }: PlannedDisk): number {
  return segments.reduce((sum, segment) => sum + Math.min(SEGMENT_BYTES, plan.sizeBytes - segment * SEGMENT_BYTES), 0);
}

function unitsOf(planned: readonly PlannedDisk[]): Uint32Array {
  const units = new Uint32Array(
    new SharedArrayBuffer(planned.reduce((sum, { segments }) => sum + segments.length, 0) * 8),
  );
  let at = 0;
  planned.forEach(({ segments }, disk) => {
    for (const segment of segments) {
      units[at++] = disk;
      units[at++] = segment;
    }
  });
  return units;
}
