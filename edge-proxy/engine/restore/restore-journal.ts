import { mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { sha256 } from '#repository/sha256.ts';

const restoreFile = z.object({
  restore: z.string(),
  doneWindows: z.array(z.number().int().nonnegative()),
  /** SHA-256 of the above: a flipped digit would leave a window unwritten. */
  sha256: z.string(),
});

/** Which windows of an interrupted restore are on the target for good. */
export class RestoreJournal {
  readonly #path: string;
  readonly #restore: string;
  readonly done: Set<number>;

  private constructor(path: string, restore: string, done: Set<number>) {
    this.#path = path;
    this.#restore = restore;
    this.done = done;
  }

  /** @param restore  what is restored to where; a journal of anything else is not used */
  static async open(path: string, restore: string): Promise<RestoreJournal> {
    await mkdir(dirname(path), { recursive: true });
    try {
      const found = restoreFile.parse(JSON.parse(await readFile(path, 'utf8')));
      if (found.restore === restore && found.sha256 === sumOf(restore, found.doneWindows))
        return new RestoreJournal(path, restore, new Set(found.doneWindows));
    } catch {
      // Absent or torn: everything is restored from the start.
    }
    await rm(path, { force: true });
    return new RestoreJournal(path, restore, new Set());
  }

  /** Call only once the window's bytes survive a crash. */
  async add(window: number): Promise<void> {
    this.done.add(window);
    const doneWindows = [...this.done];
    const sum = sumOf(this.#restore, doneWindows);
    const text = JSON.stringify({ restore: this.#restore, doneWindows, sha256: sum });
    await writeFile(`${this.#path}.new`, text, { mode: 0o600, flush: true });
    await rename(`${this.#path}.new`, this.#path);
  }

  /**
   * Forgets what was done, for good, before another target takes the old one's place: a crash must not leave an
   * old journal beside a new file, whose first windows it would call done.
   */
  async forget(): Promise<void> {
    if (this.done.size === 0) return;
    this.done.clear();
    await rm(this.#path, { force: true });
    const folder = await open(dirname(this.#path), 'r');
    await folder.sync().finally(() => folder.close());
  }

  async finish(): Promise<void> {
    await rm(this.#path, { force: true });
  }
}

function sumOf(restore: string, doneWindows: readonly number[]): string {
  return sha256(Buffer.from(JSON.stringify([restore, doneWindows]))).toString('hex');
}
