import { DatabaseSync } from 'node:sqlite';
import { HoldfastError } from '#contract/errors.ts';
import type { Clock } from '#ports/clock.ts';
import type { Random } from '#ports/random.ts';

const POLL_FIRST_MS = 1;
const POLL_MAX_MS = 50;
const WAIT_MAX_MS = 30_000;
/** Callers of one process that may wait in line. */
const QUEUE_MAX = 10_000;

/**
 * A lock between processes (and threads) that the kernel releases when its holder dies.
 *
 * Lock files with an owner's process id need a guess about who is still alive, and that guess is wrong across
 * containers, hosts and reused ids; a lease is wrong when a process is suspended. SQLite's write lock is an
 * fcntl lock on a byte of its file: it ends with the process, however that ends, and is held while the
 * process is merely suspended, so it can block but never let two in. Nothing is ever written to the file.
 */
export class ProcessLock {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #database: DatabaseSync;
  #tail: Promise<void> = Promise.resolve();
  #waiting = 0;

  constructor(path: string, clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
    this.#database = new DatabaseSync(path, { timeout: 0 });
  }

  /** Runs `work` while no other holder runs theirs. Throws `busy` (retryable) after 30 s of waiting. */
  async hold<T>(work: () => Promise<T>): Promise<T> {
    if (this.#waiting >= QUEUE_MAX) throw busy();
    this.#waiting++;
    const before = this.#tail;
    let release: () => void = () => {};
    this.#tail = new Promise((resolve) => {
      release = resolve;
    });
    try {
      await before;
      await this.#acquire();
      try {
        return await work();
      } finally {
        this.#database.exec('ROLLBACK');
      }
    } finally {
      this.#waiting--;
      release();
    }
  }

  /** Closes the lock's file after those in line have finished. */
  async close(): Promise<void> {
    await this.#tail;
    this.#database.close();
  }

  async #acquire(): Promise<void> {
    const deadline = this.#clock.monotonicMs() + WAIT_MAX_MS;
    for (let pauseMs = POLL_FIRST_MS; ; pauseMs = Math.min(pauseMs * 2, POLL_MAX_MS)) {
      try {
        this.#database.exec('BEGIN IMMEDIATE');
        return;
      } catch (error) {
        // 5 is SQLITE_BUSY in the low byte of the extended code: another process holds it.
        if (((error as { errcode?: number }).errcode ?? 0) % 256 !== 5) throw error;
        if (this.#clock.monotonicMs() >= deadline) throw busy();
      }
      await this.#clock.sleep(pauseMs * (0.5 + this.#random.fraction()));
    }
  }
}

function busy(): HoldfastError {
  return new HoldfastError('busy', 'Another process kept the store locked', {
    tried: `waited ${WAIT_MAX_MS / 1000} s`,
    retryable: true,
    remedy: 'See which other Holdfast process uses this folder; a suspended one must go on or be ended.',
  });
}
