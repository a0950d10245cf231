import type { ErrorReport } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import type { Blobs } from '#ports/blobs.ts';
import type { Clock } from '#ports/clock.ts';
import type { Random } from '#ports/random.ts';
import type { VaultKeys } from '#repository/keys.ts';
import type { VaultState } from '#repository/state.ts';
import type { DiskLocator, Extent } from '../sources/disk.ts';

/** An opened vault: where its objects are, its mutable state and its keys. */
export interface OpenVault {
  readonly id: Id<'vault'>;
  /** Keys are relative to the vault: `packs/…`, `index/…`, `points/…`. */
  readonly blobs: Blobs;
  readonly state: VaultState;
  readonly keys: VaultKeys;
}

export interface EngineContext {
  readonly clock: Clock;
  readonly random: Random;
  /** Who holds sessions opened here: host and process, for people and for finding out whether it lives. */
  readonly holder: string;
  /** Aborted with a retryable HoldfastError it means: stopped for now, the job comes again. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
  /** Folder of caches (index copies, page fingerprints) and journals; may be deleted at any time between jobs. */
  readonly cacheDir: string;
  /** Worker threads; default: one a core, at most 8. */
  readonly workers?: number;
  /** Upload or download limit. */
  readonly bytesPerSecond?: number;
}

export interface BackupRequest {
  readonly vault: OpenVault;
  readonly machine: { readonly id: Id<'machine'>; readonly name: string; readonly config?: unknown };
  readonly disks: readonly BackupDisk[];
  /** The point that `changed` is relative to; `latest` (default) or `none` for a full read. */
  readonly parent?: Id<'point'> | 'latest' | 'none';
  /** Kept sealed on the point, given back at the next backup (change ids, bitmap names). */
  readonly changeMarkers?: Readonly<Record<string, string>>;
}

export interface BackupDisk {
  readonly name: string;
  readonly locator: DiskLocator;
  readonly sizeBytes: number;
  /** Ranges that may hold data; the rest reads as zeros. Absent: the whole disk. */
  readonly allocated?: readonly Extent[];
  /** Ranges that may differ from the parent point. Absent: everything is read and compared. */
  readonly changed?: readonly Extent[];
  /** Ranges that are read and stored whatever the change list and the fingerprints say: their stored copies are in doubt. */
  readonly forced?: readonly Extent[];
}

export type Phase = 'preparing' | 'reading' | 'uploading' | 'committing' | 'restoring' | 'verifying' | 'done';
export type Stage = 'read' | 'hash' | 'compress' | 'seal' | 'check' | 'upload' | 'fetch' | 'open' | 'write';

export interface Progress {
  readonly phase: Phase;
  /** Bytes of disk dealt with, and in all. */
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Bytes sent to (backup) or fetched from (restore) the vault. */
  readonly transferredBytes: number;
  readonly bytesPerSecond: number;
  readonly secondsLeft: number | null;
  readonly bottleneck: Stage | null;
}

export interface BackupResult {
  readonly point: Id<'point'>;
  readonly kind: 'full' | 'incremental';
  readonly disks: readonly {
    readonly name: string;
    readonly sizeBytes: number;
    readonly kind: string;
    readonly why: string;
  }[];
  readonly stats: BackupStats;
}

export interface BackupStats {
  readonly diskBytes: number;
  /** Bytes read from the source. */
  readonly readBytes: number;
  /** Bytes of pages that were neither zero, nor unchanged, nor known: before compression. */
  readonly newBytes: number;
  /** Bytes of objects uploaded: packs and index segments. */
  readonly sentBytes: number;
  readonly newChunks: number;
  readonly knownChunks: number;
  readonly seconds: number;
  /** Seconds of worker time by stage. */
  readonly stageSeconds: Readonly<Partial<Record<Stage, number>>>;
}

export interface RestoreRequest {
  readonly vault: OpenVault;
  readonly machine: Id<'machine'>;
  readonly point: Id<'point'> | 'latest';
  readonly diskIndex: number;
  /** A raw file or block device, an NBD export, or `-`: the bytes in order to `output`. */
  readonly target: DiskLocator | { readonly kind: 'stream'; readonly output: NodeJS.WritableStream };
  /** The target is new and reads as zeros: zero ranges need no write. A raw file that is made here always is. */
  readonly freshTarget?: boolean;
  /** Write only blocks that differ from what the target holds. */
  readonly rollback?: boolean;
}

export interface RestoreResult {
  readonly point: Id<'point'>;
  readonly diskIndex: number;
  readonly sizeBytes: number;
  readonly stats: {
    readonly writtenBytes: number;
    readonly zeroBytes: number;
    readonly unchangedBytes: number;
    readonly fetchedBytes: number;
    readonly resumedBytes: number;
    readonly seconds: number;
  };
}

/** A range of a disk that a damaged point has lost. */
export interface LostRange {
  readonly point: Id<'point'>;
  readonly diskIndex: number;
  readonly offset: number;
  readonly length: number;
  readonly cause: ErrorReport;
}
