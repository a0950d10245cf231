import type { DiskWriter } from '../../sources/disk.ts';
import type { Meter } from '../stages.ts';

/** Bytes compared at once when only differences are written. */
const COMPARE_BYTES = 1024 * 1024;
/** What differs is written in whole pages, and pages that differ side by side at once. */
const PAGE = 4096;

/** Where a worker's restored bytes go. Offsets: in the window, and on the disk. */
export interface Sink {
  write(window: number, inWindow: number, onDisk: number, data: Buffer): void | Promise<void>;
  zero(window: number, inWindow: number, onDisk: number, length: number): void | Promise<void>;
  close(): Promise<void>;
}

/** Writes to a disk; zeros only where the disk does not read as zeros already. */
export class DiskSink implements Sink {
  readonly #disk: DiskWriter;
  readonly #startsZero: boolean;
  readonly #meter: Meter;

  constructor(disk: DiskWriter, startsZero: boolean, meter: Meter) {
    this.#disk = disk;
    this.#startsZero = startsZero;
    this.#meter = meter;
  }

  write(_window: number, _inWindow: number, onDisk: number, data: Buffer): void | Promise<void> {
    this.#meter.count('written', data.length);
    return this.#disk.write(onDisk, data);
  }

  zero(_window: number, _inWindow: number, onDisk: number, length: number): void | Promise<void> {
    this.#meter.count('zero', length);
    if (!this.#startsZero) return this.#disk.zero(onDisk, length);
  }

  close(): Promise<void> {
    return this.#disk.close();
  }
}

/** Compares with what the disk holds and writes only the pages that differ. */
export class DiffWriter implements Sink {
  readonly #disk: DiskWriter;
  readonly #meter: Meter;
  readonly #held = Buffer.alloc(COMPARE_BYTES);
  readonly #zeros = Buffer.alloc(COMPARE_BYTES);

  constructor(disk: DiskWriter, meter: Meter) {
    this.#disk = disk;
    this.#meter = meter;
  }

  async write(_window: number, _inWindow: number, onDisk: number, data: Buffer): Promise<void> {
    for (let at = 0; at < data.length; at += COMPARE_BYTES) {
      const wanted = data.subarray(at, at + COMPARE_BYTES);
      const held = this.#held.subarray(0, wanted.length);
      await this.#disk.read(onDisk + at, held);
      await this.#writeDifferences(wanted, held, (from, to) =>
        this.#disk.write(onDisk + at + from, wanted.subarray(from, to)),
      );
    }
  }

  async zero(_window: number, _inWindow: number, onDisk: number, length: number): Promise<void> {
    for (let at = 0; at < length; at += COMPARE_BYTES) {
      const size = Math.min(COMPARE_BYTES, length - at);
      const held = this.#held.subarray(0, size);
      await this.#disk.read(onDisk + at, held);
      await this.#writeDifferences(this.#zeros.subarray(0, size), held, (from, to) =>
        this.#disk.zero(onDisk + at + from, to - from),
      );
    }
  }

  close(): Promise<void> {
    return this.#disk.close();
  }

  async #writeDifferences(
    wanted: Buffer,
    held: Buffer,
    put: (from: number, to: number) => void | Promise<void>,
  ): Promise<void> {
    if (wanted.equals(held)) {
      this.#meter.count('unchanged', wanted.length);
      return;
    }
    for (let at = 0; at < wanted.length; ) {
      const from = at;
      const differs = pageDiffers(wanted, held, from);
      while (at < wanted.length && pageDiffers(wanted, held, at) === differs) at += PAGE;
      const to = Math.min(at, wanted.length);
      if (differs) await put(from, to);
      this.#meter.count(differs ? 'written' : 'unchanged', to - from);
    }
  }
}

function pageDiffers(wanted: Buffer, held: Buffer, at: number): boolean {
  const end = Math.min(at + PAGE, wanted.length);
  return wanted.compare(held, at, end, at, end) !== 0;
}

/** Fills windows of memory, which somebody else writes out in order. */
export class MemorySink implements Sink {
  readonly #windows: readonly Buffer[];
  readonly #meter: Meter;

  constructor(windows: readonly SharedArrayBuffer[], meter: Meter) {
    this.#windows = windows.map((memory) => Buffer.from(memory));
    this.#meter = meter;
  }

  write(window: number, inWindow: number, _onDisk: number, data: Buffer): void {
    this.#meter.count('written', data.length);
    data.copy(this.#windows[window]!, inWindow);
  }

  zero(window: number, inWindow: number, _onDisk: number, length: number): void {
    this.#meter.count('zero', length);
    this.#windows[window]!.fill(0, inWindow, inWindow + length);
  }

  async close(): Promise<void> {}
}

/** Counts what would be written. */
export class NoSink implements Sink {
  readonly #meter: Meter;

  constructor(meter: Meter) {
    this.#meter = meter;
  }

  write(_window: number, _inWindow: number, _onDisk: number, data: Buffer): void {
    this.#meter.count('written', data.length);
  }

  zero(_window: number, _inWindow: number, _onDisk: number, length: number): void {
    this.#meter.count('zero', length);
  }

  async close(): Promise<void> {}
}
