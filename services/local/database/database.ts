import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { HoldfastError } from '#contract/errors.ts';

/** How long a statement waits for another process that writes (a backup of the file, a person's shell). */
const BUSY_TIMEOUT_MS = 5000;
/** Callers waiting for a commit; beyond this the process is asked for more than its disk can do. */
const WAITING_MAX = 100_000;
/** Changes in one transaction: bounds how long the process is busy with nothing else. */
const BATCH_MAX = 5000;

/** A change: judges its conditions, then writes. It may run twice, so it decides by what the database says only. */
export type Change<T> = () => T;

interface Waiting {
  readonly change: Change<unknown>;
  readonly resolve: (value: never) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * One SQLite file with group commit: all changes asked for in one turn of the event loop go to the disk in one
 * transaction, since it is the disk's flush that costs. A change is answered once it survives loss of power.
 *
 * Within a transaction changes run in the order they were asked for, each seeing those before it. One that throws
 * a {@link HoldfastError} must not have written yet: it alone is refused. Any other failure undoes the
 * whole transaction, and the changes are tried again one at a time, so that only the culprit fails.
 */
export class Database {
  readonly #sqlite: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  #waiting: Waiting[] = [];
  #isScheduled = false;
  #isClosed = false;

  /** Opens or creates the file. Throws `store-failed` if it is not a database or can't be written. */
  constructor(path: string) {
    try {
      this.#sqlite = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS });
      // FULL: in WAL mode, NORMAL would lose acknowledged commits with the power.
      this.#sqlite.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;');
    } catch (error) {
      throw storeError(error);
    }
  }

  /** Runs schema statements, each of which must be harmless if it was run before. */
  define(sql: string): void {
    try {
      this.#sqlite.exec(sql);
    } catch (error) {
      throw storeError(error);
    }
  }

  /** A prepared statement, kept. Only fixed texts, never one made from data. */
  statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#sqlite.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  /** Reads what is committed. */
  read<T>(work: () => T): T {
    this.#checkOpen();
    try {
      return work();
    } catch (error) {
      throw storeError(error);
    }
  }

  /** Runs a change in the next transaction; resolves with its answer once that is on the disk. */
  write<T>(change: Change<T>): Promise<T> {
    this.#checkOpen();
    if (this.#waiting.length >= WAITING_MAX) {
      const text = `${WAITING_MAX} changes wait for the disk`;
      return Promise.reject(new HoldfastError('throttled', text, { retryable: true, remedy: 'Ask again later.' }));
    }
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push({ change, resolve: resolve as Waiting['resolve'], reject });
      if (this.#isScheduled) return;
      this.#isScheduled = true;
      setImmediate(() => this.#commit());
    });
  }

  /** Commits what waits, then closes the file. */
  close(): void {
    if (this.#isClosed) return;
    while (this.#waiting.length > 0) this.#commit();
    this.#isClosed = true;
    this.#statements.clear();
    this.#sqlite.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #commit(): void {
    this.#isScheduled = false;
    if (this.#isClosed) return;
    const batch = this.#waiting.splice(0, BATCH_MAX);
    if (this.#waiting.length > 0) {
      this.#isScheduled = true;
      setImmediate(() => this.#commit());
    }
    if (batch.length === 0) return;
    try {
      for (const settle of this.#transaction(batch)) settle();
    } catch (error) {
      if (batch.length === 1) {
        batch[0]!.reject(storeError(error));
        return;
      }
      for (const one of batch) {
        try {
          for (const settle of this.#transaction([one])) settle();
        } catch (cause) {
          one.reject(storeError(cause));
        }
      }
    }
  }

  /** Runs the changes in one transaction; answers what to tell each caller now that it is durable. */
  #transaction(batch: readonly Waiting[]): (() => void)[] {
    this.#sqlite.exec('BEGIN IMMEDIATE');
    try {
      const answers = batch.map(({ change, resolve, reject }) => {
        try {
          const value = change() as never;
          return () => resolve(value);
        } catch (error) {
          if (!(error instanceof HoldfastError)) throw error;
          return () => reject(error);
        }
      });
      this.#sqlite.exec('COMMIT');
      return answers;
    } catch (error) {
      // A full disk makes SQLite roll back by itself; then there is nothing left to undo.
      if (this.#sqlite.isTransaction) this.#sqlite.exec('ROLLBACK');
      throw error;
    }
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new HoldfastError('cancelled', 'The database is closed');
  }
}

/** What SQLite's error means to an operator. Ours pass unchanged, and so do programming errors. */
function storeError(error: unknown): unknown {
  const code = (error as { errcode?: number }).errcode;
  if (error instanceof HoldfastError || code === undefined) return error;
  const cause = { cause: error, data: { sqliteCode: code } };
  // The low byte is the primary code: https://sqlite.org/rescode.html
  switch (code % 256) {
    case 13:
      return new HoldfastError('target-full', 'No space left for the database', {
        ...cause,
        remedy: 'Free space on the file system of the data folder.',
      });
    case 5:
    case 6:
      return new HoldfastError('busy', 'Another process keeps the database locked', { ...cause, retryable: true });
    case 11:
    case 26:
      return new HoldfastError('damaged', 'The database file is damaged or no database', {
        ...cause,
        remedy: 'Restore the data folder from its backup; vaults can be recovered without it.',
      });
    default:
      return new HoldfastError('store-failed', `The database failed: ${(error as Error).message}`, {
        ...cause,
        remedy: 'Check permissions and the disk of the data folder.',
      });
  }
}
