import { createHash } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { type FileHandle, link, lstat, mkdir, open, rename, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { HoldfastError } from '#contract/errors.ts';
import { BLOB_LIST_MAX_KEYS, BLOB_SWAP_MAX_BYTES } from '#contract/limits.ts';
import type { BlobPage, Blobs, PutOptions } from '#ports/blobs.ts';
import type { Clock } from '#ports/clock.ts';
import type { Random } from '#ports/random.ts';
import { DurableFolders, type Sync, syncToDisk } from './blobs/durable-folders.ts';
import { fileErrorCode, isTransient, storeError } from './blobs/file-errors.ts';
import { openFile, readFully, removeFile, tooShort, writeAll, writeParts } from './blobs/file-io.ts';
import { checkKey, checkPrefix } from './blobs/key.ts';
import { listFiles } from './blobs/listing.ts';
import { ProcessLock } from './blobs/process-lock.ts';
import { sweepTemporaryFiles, temporaryPath } from './blobs/temporary-files.ts';

const ATTEMPTS = 4;
const RETRY_FIRST_MS = 50;
/** Our own folder below the root; no key can name it, since keys have no leading dots. */
const PRIVATE_FOLDER = '.holdfast';

export interface FileBlobsSettings {
  readonly clock: Clock;
  readonly random: Random;
  /** Open for reading only: nothing below the root is created or swept, and writes throw `usage`. */
  readonly readOnly?: boolean;
  /** How a file or folder is forced to the disk; tests make it fail. */
  readonly sync?: Sync;
}

/**
 * Opens (or creates) a folder of files as {@link FileBlobs}, and sweeps what killed writers left behind.
 * Throws `not-found` if `readOnly` and there is no such folder; `store-failed` or `target-full` if it can't be made.
 */
export async function openFileBlobs(root: string, settings: FileBlobsSettings): Promise<FileBlobs> {
  const path = resolve(root);
  try {
    if (!settings.readOnly) {
      const temporary = join(path, PRIVATE_FOLDER, 'temporary');
      const first = await mkdir(temporary, { recursive: true });
      if (first !== undefined) {
        // Everything from the first folder made down to ours must outlast a loss of power, as objects in it do.
        const folders = new DurableFolders(dirname(first), settings.sync ?? syncToDisk);
        await folders.ensure(temporary);
      }
      await sweepTemporaryFiles(join(path, PRIVATE_FOLDER, 'temporary'), settings.clock);
    }
    return new FileBlobs(path, await stat(path), settings);
  } catch (error) {
    if (fileErrorCode(error) === 'ENOENT') {
      throw new HoldfastError('not-found', `There is no folder ${path}`, { remedy: 'Check the path, or mount it.' });
    }
    throw storeError(error, 'opening', path);
  }
}

/**
 * Objects as files, each under its key as a path, so that a copy of a bucket and a folder are the same thing.
 *
 * An object is written to a temporary file of the same file system, forced to the disk, then given its name by
 * `link()`, which fails if the name is taken: that is If-None-Match, without a lock, between any processes.
 *
 * `replaceIf` needs more: no file system call renames over a file only if that file is unchanged. Versioned names
 * (`key.1`, `key.2`, … by `link()`) would need none, but then the object is no longer the file of that name, and
 * a copied folder no longer a vault. So a swap compares and renames under a {@link ProcessLock}, and `delete` takes it
 * too, lest a swap overwrite what was created after that deletion. Readers never wait: a rename is atomic.
 * A version is the SHA-256 of the content, as an S3 ETag is its hash: what is equal may be swapped.
 */
export class FileBlobs implements Blobs {
  readonly #root: string;
  readonly #identity: { readonly dev: number; readonly ino: number };
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #readOnly: boolean;
  readonly #sync: Sync;
  readonly #folders: DurableFolders;
  #lock: ProcessLock | undefined;
  /** Set once a folder could not be synced: which names are durable is then unknown until the disk is looked at. */
  #broken: HoldfastError | undefined;

  /** Use {@link openFileBlobs}. */
  constructor(root: string, identity: Stats, settings: FileBlobsSettings) {
    this.#root = root;
    this.#identity = identity;
    this.#clock = settings.clock;
    this.#random = settings.random;
    this.#readOnly = settings.readOnly ?? false;
    this.#sync = settings.sync ?? syncToDisk;
    this.#folders = new DurableFolders(root, this.#sync);
  }

  async putIfAbsent(
    key: string,
    parts: readonly Uint8Array[],
    options: PutOptions = {},
  ): Promise<'created' | 'exists'> {
    const path = this.#writable(key);
    return this.#attempt('writing', path, options.signal, async () => {
      if (await this.#isTaken(path)) return 'exists';
      return this.#withTemporary(async (handle, temporary) => {
        const sha256 = await writeParts(handle, parts, options);
        checkHash(key, sha256, options.sha256);
        await this.#sync(handle, 'file');
        return this.#publish(temporary, path);
      });
    });
  }

  /**
   * Like `putIfAbsent`, from a stream: nothing but the piece in hand is in memory.
   * Throws `damaged` unless the pieces are exactly `lengthBytes` long with that SHA-256.
   */
  async putStreamIfAbsent(
    key: string,
    pieces: AsyncIterable<Uint8Array>,
    options: PutOptions & { readonly lengthBytes: number; readonly sha256: Uint8Array },
  ): Promise<'created' | 'exists'> {
    const path = this.#writable(key);
    try {
      if (await this.#isTaken(path)) return 'exists';
      return await this.#withTemporary(async (handle, temporary) => {
        const hash = createHash('sha256');
        let length = 0;
        for await (const piece of pieces) {
          options.signal?.throwIfAborted();
          length += piece.length;
          if (length > options.lengthBytes) break;
          const written = writeAll(handle, [piece]);
          hash.update(piece);
          await written;
        }
        if (length !== options.lengthBytes) {
          throw new HoldfastError('damaged', `${length} bytes came for ${key}, not ${options.lengthBytes}`, {
            data: { key },
            retryable: true,
          });
        }
        checkHash(key, hash.digest(), options.sha256);
        await this.#sync(handle, 'file');
        return this.#publish(temporary, path);
      });
    } catch (error) {
      throw cancelled(options.signal) ?? storeError(error, 'writing', path);
    }
  }

  async replaceIf(key: string, content: Uint8Array, expected: string | null): Promise<string | undefined> {
    const path = this.#writable(key);
    if (content.length > BLOB_SWAP_MAX_BYTES) {
      throw new HoldfastError('limit', `An object that is swapped may have ${BLOB_SWAP_MAX_BYTES} bytes`, {
        data: { key, length: content.length },
      });
    }
    return this.#attempt('replacing', path, undefined, () =>
      this.#withTemporary(async (handle, temporary) => {
        await writeAll(handle, [content]);
        await this.#sync(handle, 'file');
        return this.#locked(async () => {
          if (((await this.head(key))?.version ?? null) !== expected) return undefined;
          if (expected === null) {
            // Not a rename: a putIfAbsent, which takes no lock, may come first.
            if ((await this.#publish(temporary, path)) === 'exists') return undefined;
          } else {
            await rename(temporary, path);
            await this.#syncFolder(dirname(path));
          }
          return contentVersion(content);
        });
      }),
    );
  }

  async get(key: string): Promise<{ readonly content: Uint8Array; readonly version: string } | undefined> {
    return this.#read(key, async (handle, found) => {
      const content = await readFully(handle, 0, found.size, key);
      return { content, version: found.size > BLOB_SWAP_MAX_BYTES ? fileVersion(found) : contentVersion(content) };
    });
  }

  async getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0) {
      throw new HoldfastError('usage', `Not a range of an object: ${length} bytes from ${offset}`);
    }
    const aborted = cancelled(signal);
    if (aborted) throw aborted;
    const bytes = await this.#read(key, (handle, found) => {
      if (found.size < offset + length) throw tooShort(key, found.size, offset, length);
      return readFully(handle, offset, length, key);
    });
    if (bytes !== undefined) return bytes;
    throw new HoldfastError('missing', `There is no object ${key}`, {
      data: { key },
      remedy: 'Check the vault: holdfast vault verify',
    });
  }

  async head(key: string): Promise<{ readonly sizeBytes: number; readonly version: string } | undefined> {
    return this.#read(key, async (handle, found) => {
      // Only objects small enough to be swapped are read for their version; packs are not.
      const version =
        found.size > BLOB_SWAP_MAX_BYTES
          ? fileVersion(found)
          : contentVersion(await readFully(handle, 0, found.size, key));
      return { sizeBytes: found.size, version };
    });
  }

  async list(prefix: string, cursor?: string): Promise<BlobPage> {
    checkPrefix(prefix);
    const after = cursor === undefined ? undefined : Buffer.from(cursor, 'base64url').toString();
    return this.#attempt('listing', this.#root, undefined, async () => {
      await this.#checkIdentity();
      const page = await listFiles(this.#root, prefix, after, BLOB_LIST_MAX_KEYS);
      return page.next === undefined ? page : { ...page, next: Buffer.from(page.next).toString('base64url') };
    });
  }

  async delete(key: string): Promise<void> {
    const path = this.#writable(key);
    await this.#attempt('deleting', path, undefined, async () => {
      if (!(await this.#locked(() => removeFile(path)))) return;
      await this.#syncFolder(dirname(path));
    });
  }

  /** Opens an object for reading piece by piece; the caller closes the handle. `undefined` if there is none. */
  async openForReading(key: string): Promise<{ handle: FileHandle; sizeBytes: number } | undefined> {
    checkKey(key);
    const path = join(this.#root, key);
    return this.#attempt('reading', path, undefined, async () => {
      const opened = await openFile(path);
      return opened && { handle: opened.handle, sizeBytes: opened.found.size };
    });
  }

  async close(): Promise<void> {
    await this.#lock?.close();
    this.#lock = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #writable(key: string): string {
    checkKey(key);
    if (this.#readOnly) throw new HoldfastError('usage', `The store ${this.#root} was opened for reading only`);
    if (this.#broken) throw this.#broken;
    return join(this.#root, key);
  }

  /** True if the name is an object's. Its name is synced then, since its writer may not have come that far. */
  async #isTaken(path: string): Promise<boolean> {
    let found: Stats;
    try {
      found = await lstat(path);
    } catch (error) {
      if (fileErrorCode(error) === 'ENOENT') return false;
      throw error;
    }
    if (!found.isFile()) throw isFolder(path);
    await this.#syncFolder(dirname(path));
    return true;
  }

  /** Gives a synced temporary file its name, durably, if the name is free. */
  async #publish(temporary: string, path: string): Promise<'created' | 'exists'> {
    for (let attempt = 1; ; attempt++) {
      await this.#folders.ensure(dirname(path));
      try {
        await link(temporary, path);
        await this.#syncFolder(dirname(path));
        return 'created';
      } catch (error) {
        const code = fileErrorCode(error);
        if (code === 'EEXIST') {
          await this.#isTaken(path);
          return 'exists';
        }
        if (code !== 'ENOENT' || attempt > 1) throw error;
        this.#folders.forget(); // somebody removed an empty folder that we had made before
      }
    }
  }

  async #withTemporary<T>(work: (handle: FileHandle, path: string) => Promise<T>): Promise<T> {
    await this.#checkIdentity();
    const path = temporaryPath(join(this.#root, PRIVATE_FOLDER, 'temporary'), this.#random);
    const handle = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o666);
    try {
      return await work(handle, path);
    } finally {
      await handle.close();
      // Litter at worst, which the next opening sweeps; the object that was made of it must not be reported as failed.
      await removeFile(path).catch(() => {});
    }
  }

  async #syncFolder(folder: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#folders.sync(folder);
      } catch (error) {
        if (!isTransient(error) || attempt === ATTEMPTS) throw this.#fail(folder, error);
      }
      await this.#pause(attempt); // out of descriptors: the names are there, so only this step is tried again
    }
  }

  /** After a failed fsync the kernel may have dropped the pages, and a second one would lie: no more writing. */
  #fail(folder: string, error: unknown): HoldfastError {
    this.#broken ??= new HoldfastError('store-failed', `The disk could not make names in ${folder} durable`, {
      cause: error,
      remedy: 'Check the disk and the system log, then start again.',
    });
    return this.#broken;
  }

  async #pause(attempt: number): Promise<void> {
    await this.#clock.sleep(RETRY_FIRST_MS * 2 ** attempt * (0.5 + this.#random.fraction()));
  }

  /** Fails if the root is no longer the folder that was opened: an unmounted disk must not look like an empty store. */
  async #checkIdentity(): Promise<void> {
    const found = await stat(this.#root).catch(() => undefined);
    if (found?.dev === this.#identity.dev && found.ino === this.#identity.ino) return;
    throw new HoldfastError('store-failed', `${this.#root} is no longer the folder that was opened`, {
      remedy: 'Check that its file system is still mounted, then start again.',
    });
  }

  async #locked<T>(work: () => Promise<T>): Promise<T> {
    this.#lock ??= new ProcessLock(join(this.#root, PRIVATE_FOLDER, 'lock'), this.#clock, this.#random);
    return this.#lock.hold(work);
  }

  async #read<T>(key: string, use: (handle: FileHandle, found: Stats) => Promise<T>): Promise<T | undefined> {
    checkKey(key);
    const path = join(this.#root, key);
    return this.#attempt('reading', path, undefined, async () => {
      const opened = await openFile(path);
      if (opened === undefined) {
        await this.#checkIdentity();
        return undefined;
      }
      try {
        return await use(opened.handle, opened.found);
      } finally {
        await opened.handle.close();
      }
    });
  }

  async #attempt<T>(act: string, path: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        signal?.throwIfAborted();
        return await work();
      } catch (error) {
        const aborted = cancelled(signal);
        if (aborted) throw aborted;
        if (!isTransient(error) || attempt === ATTEMPTS) throw storeError(error, act, path);
      }
      await this.#pause(attempt);
    }
  }
}

function contentVersion(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}

function fileVersion(found: Stats): string {
  return `${found.ino}-${found.mtimeMs}-${found.size}`;
}

function checkHash(key: string, actual: Uint8Array | undefined, expected: Uint8Array | undefined): void {
  if (expected === undefined || (actual !== undefined && Buffer.compare(actual, expected) === 0)) return;
  throw new HoldfastError('damaged', `The content for ${key} does not have the SHA-256 that was announced`, {
    data: { key },
  });
}

function isFolder(path: string): HoldfastError {
  return new HoldfastError('usage', `${path} is a folder of other objects, so no object can have this key`, {
    remedy: 'No key may continue another key with a "/".',
  });
}

function cancelled(signal: AbortSignal | undefined): HoldfastError | undefined {
  if (!signal?.aborted) return undefined;
  return new HoldfastError('cancelled', 'The operation was cancelled', { cause: signal.reason });
}
