/** Lets a bounded number of acts with a bounded weight in at a time; the next one waits. For one caller. */
export class Turnstile {
  readonly #maxCount: number;
  readonly #maxWeight: number;
  #count = 0;
  #weight = 0;
  #waiting: (() => void) | undefined;

  constructor(maxCount: number, maxWeight: number) {
    this.#maxCount = maxCount;
    this.#maxWeight = maxWeight;
  }

  /** Resolves when there is room; an act heavier than all room gets in alone. */
  async enter(weight: number): Promise<void> {
    await this.#until(
      () => this.#count === 0 || (this.#count < this.#maxCount && this.#weight + weight <= this.#maxWeight),
    );
    this.#count++;
    this.#weight += weight;
  }

  /** Ends an act that was let in. */
  leave(weight: number): void {
    this.#count--;
    this.#weight -= weight;
    this.#waiting?.();
  }

  /** Resolves when nothing is in. */
  async empty(): Promise<void> {
    await this.#until(() => this.#count === 0);
  }

  async #until(fits: () => boolean): Promise<void> {
    while (!fits()) {
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
    this.#waiting = undefined;
  }
}

const SIZES = [64 * 1024 + 64, 256 * 1024 + 64, 1024 * 1024 + 64];

/** Buffers used again, since fresh memory costs more than what is read into it. */
export class BufferPool {
  readonly #keep: number;
  readonly #free = new Map<number, Buffer[]>(SIZES.map((size) => [size, []]));

  constructor(keep: number) {
    this.#keep = keep;
  }

  /** A buffer of at least this many bytes, with arbitrary content. */
  take(bytes: number): Buffer {
    const size = SIZES.find((s) => s >= bytes);
    if (size === undefined) return Buffer.allocUnsafeSlow(bytes);
    return this.#free.get(size)!.pop() ?? Buffer.allocUnsafeSlow(size);
  }

  /** Takes back a buffer that nobody uses any more. */
  give(buffer: Buffer): void {
    const free = this.#free.get(buffer.length);
    if (free && free.length < this.#keep) free.push(buffer);
  }
}
