import { COMMAND } from './protocol.ts';
import type { Transmission } from './transmission.ts';

const ZEROS = Buffer.alloc(256 * 1024);

/**
 * Ranges at any byte over a server that wants multiples of a block size: reads fetch whole blocks,
 * writes of a part of a block read it first. Where the block size is 1 (most servers) everything passes through.
 */
export class AlignedIo {
  readonly #transmission: Transmission;
  readonly #block: number;
  /** Ends when the last unaligned write has ended: two of them could change parts of the same block. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(transmission: Transmission, blockBytes: number) {
    this.#transmission = transmission;
    this.#block = blockBytes;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    const { from, to } = this.#whole(offset, into.length);
    if (from === offset && to === offset + into.length) return this.#read(offset, into);
    const blocks = Buffer.allocUnsafe(to - from);
    await this.#read(from, blocks);
    into.set(blocks.subarray(offset - from, offset - from + into.length));
  }

  async write(offset: number, data: Uint8Array, flags: number): Promise<void> {
    const { from, to } = this.#whole(offset, data.length);
    const run = (at: number, bytes: Uint8Array) =>
      this.#transmission.run({ command: COMMAND.write, flags, offset: at, length: bytes.length, data: bytes });
    if (from === offset && to === offset + data.length) return run(offset, data);
    await this.#inTurn(async () => {
      const blocks = Buffer.allocUnsafe(to - from);
      await this.#read(from, blocks.subarray(0, this.#block));
      if (to - from > this.#block) await this.#read(to - this.#block, blocks.subarray(to - from - this.#block));
      blocks.set(data, offset - from);
      await run(from, blocks);
    });
  }

  /** Zeroes by request; the parts of blocks at both ends by writes. */
  async zero(offset: number, length: number, flags: number, pieceBytes: number): Promise<void> {
    const inner = this.#inner(offset, length);
    if (!inner) return this.writeZeros(offset, length, flags & 1);
    await this.writeZeros(offset, inner.from - offset, flags & 1);
    await this.#transmission.run({
      command: COMMAND.writeZeroes,
      flags,
      offset: inner.from,
      length: inner.to - inner.from,
      pieceBytes,
    });
    await this.writeZeros(inner.to, offset + length - inner.to, flags & 1);
  }

  /** Trims the whole blocks inside the range. */
  async trim(offset: number, length: number, pieceBytes: number): Promise<void> {
    const inner = this.#inner(offset, length);
    if (!inner) return;
    await this.#transmission.run({
      command: COMMAND.trim,
      flags: 0,
      offset: inner.from,
      length: inner.to - inner.from,
      pieceBytes,
    });
  }

  /** Zeroes by plain writes. */
  async writeZeros(offset: number, length: number, flags: number): Promise<void> {
    for (let done = 0; done < length; done += ZEROS.length) {
      await this.write(offset + done, ZEROS.subarray(0, Math.min(ZEROS.length, length - done)), flags);
    }
  }

  #read(offset: number, into: Uint8Array): Promise<void> {
    return this.#transmission.run({ command: COMMAND.read, flags: 0, offset, length: into.length, into });
  }

  #whole(offset: number, length: number): { from: number; to: number } {
    const from = offset - (offset % this.#block);
    return { from, to: Math.ceil((offset + length) / this.#block) * this.#block };
  }

  #inner(offset: number, length: number): { from: number; to: number } | undefined {
    const from = Math.ceil(offset / this.#block) * this.#block;
    const to = offset + length - ((offset + length) % this.#block);
    return to > from ? { from, to } : undefined;
  }

  #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(act);
    this.#turn = mine.catch(() => {}); // the next one starts whatever became of this one
    return mine;
  }
}
