import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { HoldfastError } from '#contract/errors.ts';

/** A folder held by this process until it is disposed or dies. */
export interface FolderLock extends Disposable {
  readonly folder: string;
}

/**
 * Takes a folder for this process alone, creating it (mode 0700) if need be; throws `busy` naming who has it.
 *
 * The lock is SQLite's exclusive lock on an empty database: the kernel takes it back when the process dies, however
 * it dies, so that nothing stale is ever left to judge.
 *
 * @param what  what a person calls what runs there, such as "control plane"
 */
export function lockFolder(folder: string, what: string): FolderLock {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const holderPath = join(folder, 'lock.pid');
  const database = new DatabaseSync(join(folder, 'lock'), { timeout: 0 });
  try {
    // In WAL mode readers and writers share; in this one, BEGIN EXCLUSIVE keeps everybody out.
    database.exec('PRAGMA journal_mode = DELETE; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE;');
  } catch (cause) {
    database.close();
    throw new HoldfastError('busy', `Another ${what} (process ${holder(holderPath)}) runs on ${folder}`, {
      remedy: 'Use that one, stop it, or give another folder with --data',
      cause,
    });
  }
  writeFileSync(holderPath, `${process.pid}\n`);
  return {
    folder,
    [Symbol.dispose]() {
      database.close();
    },
  };
}

function holder(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return 'unknown';
  }
}
