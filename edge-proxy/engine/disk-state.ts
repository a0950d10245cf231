import { createWriteStream, existsSync, type WriteStream } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
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
 */
export class DiskState {
  readonly #folder: string;
  #log: WriteStream | undefined;
  #logBytes = 0;
  #fresh = true;

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
    if (next && is(next)) await state.#apply(next);
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
    this.#log ??= createWriteStream(join(this.#folder, 'next.log'), { mode: 0o600 });
    this.#log.write(record);
    this.#logBytes += record.length;
  }

  /** Makes everything ready for the image that is about to be committed. */
  async prepare(root: string | null, sizeBytes: number, table: LeafTable): Promise<void> {
    const log = this.#log;
    if (log) await new Promise<void>((resolve, reject) => log.once('error', reject).end(resolve));
    else await writeFile(join(this.#folder, 'next.log'), '');
    await writeFile(join(this.#folder, 'next.table'), table.bytes, { mode: 0o600 });
    await writeJson(join(this.#folder, 'next.json'), { root, sizeBytes, logBytes: this.#logBytes, fresh: this.#fresh });
  }

  /** The point is committed: what was prepared is now what is known. */
  async finish(): Promise<void> {
    const next = await this.#read('next.json');
    if (next) await this.#apply(next);
  }

  close(): void {
    this.#log?.destroy();
  }

  async #apply(next: StateFile): Promise<void> {
    const at = (name: string) => join(this.#folder, name);
    // From here the fingerprints are neither the old image's nor the new one's until all is done.
    await rm(at('state.json'), { force: true });
    if (next.fresh) await rm(at('fingerprints'), { force: true });
    applyFingerprintLog(at('next.log'), next.logBytes, at('fingerprints'));
    // After a crash the table may have been moved already.
    if (existsSync(at('next.table'))) await rename(at('next.table'), at('table'));
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
}
