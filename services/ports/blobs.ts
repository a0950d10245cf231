/**
 * Immutable objects by key, and a few small ones changed by compare-and-swap.
 *
 * Adapters: folders of files (services/local), S3 (services/aws), and the proxy's, which asks the
 * control plane for grants. Each passes test/conformance/blobs.ts.
 *
 * Duties of every adapter: an object becomes visible whole or not at all; once a put has resolved
 * the object survives loss of power; reads after that see it; transient failures are retried within
 * a bound before `store-failed` (retryable) is thrown; `target-full` when there is no space.
 * Keys are names joined by `/`, none empty or with a leading dot, together at most 1,024 bytes; no key continues
 * another with a `/`, since a folder of files must be able to hold what a bucket does.
 */
export interface Blobs {
  /**
   * Writes an object under a key that must not exist (S3: If-None-Match: *).
   * @param parts  the content, in order; not modified, not kept
   * @returns `exists` if the key was taken already, by whatever content; nothing is changed then
   */
  putIfAbsent(key: string, parts: readonly Uint8Array[], options?: PutOptions): Promise<'created' | 'exists'>;
  /**
   * Compare-and-swap: writes if the object's current version is `expected` (`null`: it does not exist).
   * @returns the new version, or `undefined` if another version was found
   */
  replaceIf(key: string, content: Uint8Array, expected: string | null): Promise<string | undefined>;
  /** The whole object with its version, or `undefined`. */
  get(key: string): Promise<{ readonly content: Uint8Array; readonly version: string } | undefined>;
  /**
   * `length` bytes from `offset`. Throws `missing` if there is no such object and `damaged` if it
   * is shorter than `offset + length`.
   */
  getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array>;
  /** Size and version, or `undefined`. */
  head(key: string): Promise<{ readonly sizeBytes: number; readonly version: string } | undefined>;
  /** A page of keys under the prefix in byte order; `next` is absent on the last page. */
  list(prefix: string, cursor?: string): Promise<BlobPage>;
  /** Removes the object if it exists. */
  delete(key: string): Promise<void>;
}

export interface PutOptions {
  /** SHA-256 of the content; the store refuses other content (`damaged`). */
  readonly sha256?: Uint8Array;
  readonly signal?: AbortSignal;
}

export interface BlobPage {
  readonly blobs: readonly { readonly key: string; readonly sizeBytes: number }[];
  readonly next?: string;
}

/** A URL that lets its holder do one thing with one object for a short time. */
export interface Grant {
  readonly url: string;
  readonly method: 'PUT' | 'GET';
  /** Headers that are signed: the request must carry exactly these. */
  readonly headers: Readonly<Record<string, string>>;
  readonly expiresAtMs: number;
}

/** Makes grants for objects of a Blobs store (S3: presigned URLs; local: signed URLs of the same server). */
export interface BlobGrants {
  /** Upload of exactly these bytes under a key that must not exist. */
  grantUpload(key: string, lengthBytes: number, sha256: Uint8Array, ttlSeconds: number): Promise<Grant>;
  /** Download, whole or by Range. */
  grantDownload(key: string, ttlSeconds: number): Promise<Grant>;
}
