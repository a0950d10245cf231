import { constants } from 'node:fs';
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileErrorCode } from './file-errors.ts';

/** Forces a file's content or a folder's names to the disk; replaced in tests to make it fail. */
export type Sync = (handle: FileHandle, what: 'file' | 'folder') => Promise<void>;

/** fdatasync suffices for a file; on ext4 it does not wait for new names in a folder, so folders take fsync. */
export const syncToDisk: Sync = (handle, what) => (what === 'file' ? handle.datasync() : handle.sync());

/** Folders whose existence is known to be durable; beyond this many the memory is emptied and learnt anew. */
const KNOWN_MAX = 10_000;

/** Creates folders so that they survive loss of power: each new name is synced in its parent. */
export class DurableFolders {
  readonly #root: string;
  readonly #sync: Sync;
  readonly #known = new Set<string>();

  /** @param root  an existing folder; nothing above it is touched */
  constructor(root: string, sync: Sync) {
    this.#root = root;
    this.#sync = sync;
  }

  /** Makes the folder and its parents below the root. A folder seen for the first time is synced even if it exists. */
  async ensure(folder: string): Promise<void> {
    if (folder === this.#root || this.#known.has(folder)) return;
    const parent = dirname(folder);
    await this.ensure(parent);
    try {
      await mkdir(folder);
    } catch (error) {
      if (fileErrorCode(error) !== 'EEXIST') throw error;
      // Made by another process, which may not have synced its name yet: we do.
    }
    await this.sync(parent);
    if (this.#known.size >= KNOWN_MAX) this.#known.clear();
    this.#known.add(folder);
  }

  /** Forgets what was known, after a folder turned out to be gone. */
  forget(): void {
    this.#known.clear();
  }

  /** Makes the names in a folder durable. */
  async sync(folder: string): Promise<void> {
    const handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      await this.#sync(handle, 'folder');
    } finally {
      await handle.close();
    }
  }
}
