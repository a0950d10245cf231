/** What a server asks of a disk. Calls come concurrently, always within the size; none is made after the session ended. */
export interface ExportBackend {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Shown in lists of exports. */
  readonly description?: string;
  /** Fills `into` from `offset`. The buffer is the server's: do not keep it. */
  read(offset: number, into: Uint8Array, signal: AbortSignal): void | Promise<void>;
  /** Writes; the data are only valid until the promise settles. */
  write?(offset: number, data: Uint8Array, signal: AbortSignal): void | Promise<void>;
  /** Makes the range read as zeros, as a hole if `punch`; absent: the server writes zeros. */
  zero?(offset: number, length: number, punch: boolean, signal: AbortSignal): void | Promise<void>;
  /** The content no longer matters; absent: trim is not offered. */
  trim?(offset: number, length: number, signal: AbortSignal): void | Promise<void>;
  /** Resolves when all that was written survives loss of power; absent: flush is not offered. */
  flush?(signal: AbortSignal): void | Promise<void>;
  /** States from `offset` on in order; may end early (at least one extent) or reach further. Absent: all is data. */
  blockStatus?(offset: number, length: number, signal: AbortSignal): BlockExtent[] | Promise<BlockExtent[]>;
}

/** A run of equal state, for `base:allocation`. */
export interface BlockExtent {
  readonly length: number;
  /** Nothing is allocated here. */
  readonly hole: boolean;
  /** It reads as zeros. */
  readonly zero: boolean;
}
