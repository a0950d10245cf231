import { createHash } from 'node:crypto';
import { createWriteStream, existsSync, type WriteStream } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { segmentsOf } from '#repository/image.ts';
import { sha256 } from '#repository/sha256.ts';
import { applyFingerprintLog, SUM_BYTES } from './fingerprints.ts';
import { LeafTable } from './unit.ts';

const hexSum = z.string().length(64);
const imageFields = { root: z.string().nullable(), sizeBytes: z.number(), tableSha256: hexSum };
const stateFile = z.object({ ...imageFields, sumsSha256: hexSum });
const nextFile = z.object({
  ...imageFields,
  logBytes: z.number(),
  logSha256: hexSum,
  /** The sums that the log is laid over; `null`: nothing is known that could be kept. */
  baseSha256: hexSum.nullable(),
});
type StateFile = z.infer<typeof stateFile>;
type NextFile = z.infer<typeof nextFile>;

/**
 * What the proxy remembers of a disk between backups: the leaf table of its last image and a
 * fingerprint of each page. A cache: it names the image it belongs to, and where that is not the
 * parent's, or anything is missing or not what was written, it is not used: a wrong leaf id or an old
 * fingerprint would become a wrong backup.
 *
 * Files: `state.json` (with the SHA-256 of the next two), `table`, `sums` (of each segment's fingerprints, checked
 * when they are read), `fingerprints`, and of an unfinished backup `next.json`,
 * `next.table`, `next.log`. `next.json` is written before the point is committed and names the image
 * that the point will have: after a crash, whoever finds that image committed finishes the step.
 */
export class DiskState {
  readonly #folder: string;
  #log: WriteStream | undefined;
  #logBytes = 0;
  readonly #logHash = createHash('sha256');
  #logFailure: unknown;
  #baseSha256: string | null = null;

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
    const is = (file: StateFile | NextFile | undefined) =>
      file !== undefined && root !== undefined && file.root === root && file.sizeBytes === sizeBytes;
    const next = await state.#read('next.json', nextFile);
    if (next && is(next)) await state.#apply(next).catch(() => undefined); // without it, nothing is known
    await Promise.all(['next.json', 'next.table', 'next.log'].map((name) => rm(join(folder, name), { force: true })));
    const held = await state.#read('state.json', stateFile);
    if (!held || !is(held)) return { state };
    const table = await readChecked(join(folder, 'table'), held.tableSha256);
    const sums = await readChecked(join(folder, 'sums'), held.sumsSha256);
    const fingerprintsPath = join(folder, 'fingerprints');
    if (table === undefined || sums === undefined || !existsSync(fingerprintsPath)) return { state };
    state.#baseSha256 = held.sumsSha256;
    return { state, known: { table: new LeafTable(shared(table)), fingerprintsPath, sums: shared(sums) } };
  }

  /** Appends a record of new fingerprints. */
  log(record: Uint8Array): void {
    this.#log ??= createWriteStream(join(this.#folder, 'next.log'), { mode: 0o600 }).on('error', (error) => {
      this.#logFailure ??= error; // comes out of prepare()
    });
    this.#log.write(record);
    this.#logHash.update(record);
    this.#logBytes += record.length;
  }

  /**
   * Makes everything ready for the image that is about to be committed. A full disk under the cache fails no
   * backup: what is known then stays the old image's, and the next backup reads everything.
   */
  async prepare(root: string | null, sizeBytes: number, table: LeafTable): Promise<void> {
    const at = (name: string) => join(this.#folder, name);
    const log = this.#log;
    try {
      if (this.#logFailure) throw this.#logFailure;
      if (log) await endOf(log);
      else await writeFile(at('next.log'), '');
      await writeFile(at('next.table'), table.bytes, { mode: 0o600 });
      await writeJson(at('next.json'), {
        root,
        sizeBytes,
        tableSha256: sha256(table.bytes).toString('hex'),
        logBytes: this.#logBytes,
        logSha256: this.#logHash.digest('hex'),
        baseSha256: this.#baseSha256,
      } satisfies NextFile);
    } catch {
      await rm(at('next.json'), { force: true }).catch(() => undefined);
    }
  }

  /** The point is committed: what was prepared is now what is known. */
  async finish(): Promise<void> {
    const next = await this.#read('next.json', nextFile);
    // The point stands whatever becomes of a cache: without it the next backup reads everything.
    if (next) await this.#apply(next).catch(() => undefined);
  }

  close(): void {
    this.#log?.destroy();
  }

  async #apply(next: NextFile): Promise<void> {
    const at = (name: string) => join(this.#folder, name);
    // From here the fingerprints are neither the old image's nor the new one's until all is done. The sums tell
    // for each segment which it is, should a crash come in between.
    await rm(at('state.json'), { force: true });
    if (next.baseSha256 === null) await rm(at('fingerprints'), { force: true });
    const sums = Buffer.alloc(segmentsOf(next.sizeBytes) * SUM_BYTES);
    if (next.baseSha256 !== null) (await readChecked(at('sums'), next.baseSha256))?.copy(sums);
    const log = { path: at('next.log'), bytes: next.logBytes, sha256: next.logSha256 };
    if (!applyFingerprintLog(log, at('fingerprints'), sums)) return;
    // After a crash the table may have been moved already.
    if (existsSync(at('next.table'))) await rename(at('next.table'), at('table'));
    await writeFile(at('sums'), sums, { mode: 0o600 });
    const { root, sizeBytes, tableSha256 } = next;
    const sumsSha256 = sha256(sums).toString('hex');
    await writeJson(at('state.json'), { root, sizeBytes, tableSha256, sumsSha256 } satisfies StateFile);
    await rm(at('next.json'), { force: true });
    await rm(at('next.log'), { force: true });
  }

  async #read<T>(name: string, schema: z.ZodType<T>): Promise<T | undefined> {
    try {
      return schema.parse(JSON.parse(await readFile(join(this.#folder, name), 'utf8')));
    } catch {
      return undefined; // absent or torn: a cache that is not there
    }
  }
}

/** What is known of the parent image of a disk. */
export interface KnownDisk {
  readonly table: LeafTable;
  readonly fingerprintsPath: string;
  /** Of each segment's fingerprints, for `readFingerprints`. */
  readonly sums: SharedArrayBuffer;
}

function endOf(log: WriteStream): Promise<void> {
  return new Promise((resolve, reject) => {
    log.once('error', reject);
    log.end((error?: Error | null) => (error ? reject(error) : resolve()));
  });
}

/** A file's bytes if they are what was written. */
async function readChecked(path: string, expected: string): Promise<Buffer | undefined> {
  const bytes = await readFile(path).catch(() => undefined);
  return bytes && sha256(bytes).toString('hex') === expected ? bytes : undefined;
}

function shared(bytes: Buffer): SharedArrayBuffer {
  const memory = new SharedArrayBuffer(bytes.length);
  Buffer.from(memory).set(bytes);
  return memory;
}

async function writeJson(path: string, value: object): Promise<void> {
  await writeFile(`${path}.tmp`, JSON.stringify(value), { mode: 0o600, flush: true });
  await rename(`${path}.tmp`, path);
}
