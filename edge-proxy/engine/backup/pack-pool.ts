const FREE = 0;
const TAKEN = 1;

export interface PackPoolMemory {
  readonly state: SharedArrayBuffer;
  readonly buffers: readonly SharedArrayBuffer[];
}

/** Memory for `count` packs of up to `packBytes`. It is the whole memory that packs ever take: back-pressure begins here. */
export function allocatePackPool(count: number, packBytes: number): PackPoolMemory {
  return {
    state: new SharedArrayBuffer((count + 1) * 4),
    buffers: Array.from({ length: count }, () => new SharedArrayBuffer(packBytes)),
  };
}

/** Lends pack buffers to workers; the uploader gives them back. */
export class PackPool {
  readonly #state: Int32Array; // one word a buffer, then the count of releases, on which waiters sleep
  readonly #buffers: readonly Buffer[];

  constructor(memory: PackPoolMemory) {
    this.#state = new Int32Array(memory.state);
    this.#buffers = memory.buffers.map((memory) => Buffer.from(memory));
  }

  buffer(index: number): Buffer {
    return this.#buffers[index]!;
  }

  /** Takes a free buffer, asleep until there is one; -1 once `stopped` is true. Workers only. */
  acquire(stopped: () => boolean): number {
    const releases = this.#buffers.length;
    for (;;) {
      const seen = Atomics.load(this.#state, releases);
      for (let i = 0; i < this.#buffers.length; i++) {
        if (Atomics.compareExchange(this.#state, i, FREE, TAKEN) === FREE) return i;
      }
      if (stopped()) return -1;
      Atomics.wait(this.#state, releases, seen);
    }
  }

  release(index: number): void {
    Atomics.store(this.#state, index, FREE);
    this.wake();
  }

  /** Lets all that wait look again. */
  wake(): void {
    Atomics.add(this.#state, this.#buffers.length, 1);
    Atomics.notify(this.#state, this.#buffers.length);
  }
}
