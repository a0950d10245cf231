import { createWriteStream, existsSync, type WriteStream } from 'node:fs';
import { mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { applyFingerprintLog } from './fingerprints.ts';
import { LeafTable } from './unit.ts';

const stateFile = z.object({
  root: z.string().nullable(),
  sizeBytes: z.number(),
  logBytes: z.number(),
  fresh: z.boolean(),
});
type StateFile = z.infer<typeof stateFile>;

/**
 * What the proxy remembers of a disk between backups: the leaf table of its last image and a
 * fingerprint of each page. A cache: it names the image it belongs to, and where that is not the
 * parent's, or anything is missing, it is not used.
 *
 * Files: `state.json`, `table`, `fingerprints`, and of an unfinished backup `next.json`,
 * `next.table`, `next.log`. `next.json` is written before the point is committed and names the image
 * that the point will have: after a crash, whoever finds that image committed finishes the step.
 *
 * A fingerprint that is older than its image would hide a change from the next backup for ever. So each
 * step is on the disk before the next begins, lest a loss of power reorder them.
 */
export class DiskState {
  readonly #folder: string;
  #log: WriteStream | undefined;
  #logBytes = 0;
  #fresh = true;
  #logFailed = false;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /**
   * Opens the folder and answers the table and fingerprints, if they belong to the image given.
   * @param root  hex id of the parent's image root; `undefined`: there is no parent
   */
  static async open(
    folder: string,
    root: string | null | undefined,
    sizeBytes: number,
  ): Promise<{ readonly state: DiskState; readonly known?: KnownDisk }> {
    await mkdir(folder, { recursive: true });
    const state = new DiskState(folder);
    const is = (file: StateFile | undefined) =>
      file !== undefined && root !== undefined && file.root === root && file.sizeBytes === sizeBytes;
    const next = await state.#read('next.json');
    if (next && is(next)) await state.#applyOrForget(next);
    await Promise.all(['next.json', 'next.table', 'next.log'].map((name) => rm(join(folder, name), { force: true })));
    if (!is(await state.#read('state.json'))) return { state };
    const table = await readFile(join(folder, 'table')).catch(() => undefined);
    const fingerprintsPath = join(folder, 'fingerprints');
    if (table === undefined || !existsSync(fingerprintsPath)) return { state };
    const memory = new SharedArrayBuffer(table.length);
    Buffer.from(memory).set(table);
    state.#fresh = false;
    return { state, known: { table: new LeafTable(memory), fingerprintsPath } };
  }

  /** Appends a record of new fingerprints. */
  log(record: Uint8Array): void {
    this.#log ??= createWriteStream(join(this.#folder, 'next.log'), { mode: 0o600 }).on('error', () => {
      this.#logFailed = true;
    });
    this.#log.write(record);
    this.#logBytes += record.length;
  }

  /**
   * Makes everything ready for the image that is about to be committed. A full disk under the cache fails no
   * backup: what is known then stays the old image's, and the next backup reads everything.
   */
  async prepare(root: string | null, sizeBytes: number, table: LeafTable): Promise<void> {
    try {
      await this.#prepare(root, sizeBytes, table);
    } catch {
      await rm(join(this.#folder, 'next.json'), { force: true });
    }
  }

  async #prepare(root: string | null, sizeBytes: number, table: LeafTable): Promise<void> {
    const log = this.#log;
    if (log) await new Promise((ended) => log.once('error', ended).end(ended));
    else await writeFile(join(this.#folder, 'next.log'), '');
    if (this.#logFailed) throw new HoldfastError('target-failed', 'The fingerprint log could not be written');
    await syncPath(join(this.#folder, 'next.log'));
    await writeFile(join(this.#folder, 'next.table'), table.bytes, { mode: 0o600, flush: true });
    await writeJson(join(this.#folder, 'next.json'), { root, sizeBytes, logBytes: this.#logBytes, fresh: this.#fresh });
  }

  /** The point is committed: what was prepared is now what is known. */
  async finish(): Promise<void> {
    const next = await this.#read('next.json');
    if (next) await this.#applyOrForget(next);
  }

  close(): void {
    this.#log?.destroy();
  }

  /** What cannot be finished is not known: the next backup reads everything. */
  async #applyOrForget(next: StateFile): Promise<void> {
    try {
      await this.#apply(next);
    } catch {
      for (const name of ['state.json', 'next.json']) await rm(join(this.#folder, name), { force: true });
    }
  }

  async #apply(next: StateFile): Promise<void> {
    const at = (name: string) => join(this.#folder, name);
    // From here the fingerprints are neither the old image's nor the new one's until all is done.
    await rm(at('state.json'), { force: true });
    await syncPath(this.#folder);
    if (next.fresh) await rm(at('fingerprints'), { force: true });
    applyFingerprintLog(at('next.log'), next.logBytes, at('fingerprints'));
    // After a crash the table may have been moved already.
    if (existsSync(at('next.table'))) await rename(at('next.table'), at('table'));
    await syncPath(this.#folder);
    await writeJson(at('state.json'), next);
    await rm(at('next.json'), { force: true });
    await rm(at('next.log'), { force: true });
  }

  async #read(name: string): Promise<StateFile | undefined> {
    try {
      return stateFile.parse(JSON.parse(await readFile(join(this.#folder, name), 'utf8')));
    } catch {
      return undefined; // absent or torn: a cache that is not there
    }
  }
}

/** What is known of the parent image of a disk. */
export interface KnownDisk {
  readonly table: LeafTable;
  readonly fingerprintsPath: string;
}

async function writeJson(path: string, value: StateFile): Promise<void> {
  await writeFile(`${path}.tmp`, JSON.stringify(value), { mode: 0o600, flush: true });
  await rename(`${path}.tmp`, path);
  await syncPath(dirname(path));
}

/** Forces a file's content, or a folder's names, to the disk. */
async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
