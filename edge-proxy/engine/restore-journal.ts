import { mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';

const restoreFile = z.object({ restore: z.string(), doneWindows: z.array(z.number().int().nonnegative()) });

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
      if (found.restore === restore) return new RestoreJournal(path, restore, new Set(found.doneWindows));
    } catch {
      // Absent or torn: everything is restored from the start.
    }
    await rm(path, { force: true });
    return new RestoreJournal(path, restore, new Set());
  }

  /** Call only once the window's bytes survive a crash. */
  async add(window: number): Promise<void> {
    this.done.add(window);
    const text = JSON.stringify({ restore: this.#restore, doneWindows: [...this.done] });
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
