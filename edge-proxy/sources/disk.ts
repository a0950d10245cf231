/**
 * What the engine sees of a disk, whatever hypervisor or file it comes from: a size, extents, and
 * reads (or writes) at offsets. A disk is named by a plain {@link DiskLocator}, so that each worker
 * thread opens a connection or descriptor of its own.
 */

/** Where a disk's bytes are. Plain data: crosses threads and is stored in journals. */
export type DiskLocator =
  | { readonly kind: 'file'; readonly path: string } // raw file or block device
  | { readonly kind: 'nbd'; readonly address: NbdAddress };

export interface NbdAddress {
  readonly socket?: string; // unix socket path; else host and port
  readonly host?: string;
  readonly port?: number;
  readonly exportName: string;
  readonly tls?: {
    /** PEM files: certificate authority, and own certificate and key where the server asks for one. */
    readonly caFile: string;
    readonly certFile?: string;
    readonly keyFile?: string;
    readonly serverName?: string;
  };
}

/** A range of a disk in bytes. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

export interface DiskReader {
  readonly sizeBytes: number;
  /**
   * `immediate`: reads finish before they return (files): ask for one small stripe at a time, so that
   * the bytes are worked on while they are in the processor's cache. `pipelined`: reads return
   * promises (NBD): ask for many, then await them in order.
   */
  readonly style: 'immediate' | 'pipelined';
  /**
   * Fills `into` from `offset`. Throws `unreadable` with disk offset and length when the disk answers
   * an error, `source-changed` when it ends early. Never leaves a part unfilled silently.
   */
  read(offset: number, into: Uint8Array): void | Promise<void>;
  close(): Promise<void>;
}

export interface DiskWriter {
  readonly sizeBytes: number;
  /** True if a disk that nobody has written to yet reads as zeros, so that zero runs need no write. */
  readonly startsZero: boolean;
  /** Writes; throws `target-full` or `target-failed`. */
  write(offset: number, data: Uint8Array): void | Promise<void>;
  /** Makes the range read as zeros, as a hole where the target can. */
  zero(offset: number, length: number): void | Promise<void>;
  /** Fills `into` with what the target holds now (for rollback, which writes only what differs). */
  read(offset: number, into: Uint8Array): void | Promise<void>;
  /** Resolves when all that was written survives loss of power. */
  flush(): Promise<void>;
  close(): Promise<void>;
}
