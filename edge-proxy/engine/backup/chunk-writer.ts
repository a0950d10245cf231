import { HoldfastError } from '#contract/errors.ts';
import type { Random } from '#ports/random.ts';
import type { ChunkNamer } from '#repository/chunk.ts';
import { freeBuffer } from '#repository/free-buffer.ts';
import { PAGE_BYTES } from '#repository/parameters.ts';
import { SEAL_OVERHEAD_BYTES, type Sealer } from '#repository/seal.ts';
import type { KnownChunks } from '../known-chunks.ts';
import type { Meter } from '../stages.ts';
import type { ChunkClaims } from './claims.ts';
import type { Packer } from './packer.ts';

export interface ChunkWriterParts {
  readonly namer: ChunkNamer;
  readonly sealer: Sealer;
  readonly claims: ChunkClaims;
  readonly known: KnownChunks;
  readonly packer: Packer;
  readonly meter: Meter;
  readonly random: Random;
  /** zstd level for the next chunk; moves with the bottleneck. */
  readonly level: () => number;
  /** Share of sealed chunks that are opened again and compared, 0 to 1. */
  readonly checkShare: () => number;
}

/** Stores data chunks that the vault does not have yet. */
export class ChunkWriter {
  readonly #parts: ChunkWriterParts;

  constructor(parts: ChunkWriterParts) {
    this.#parts = parts;
  }

  /**
   * @param data  whole pages (the disk's last may be short)
   * @param pageHashes  32 bytes a page
   * @returns the chunk's id; the chunk is known to the vault, or on its way to a pack
   */
  write(data: Buffer, pageHashes: Buffer): Buffer {
    const { namer, claims, known, meter } = this.#parts;
    const id = namer.ofPageHashes(pageHashes);
    const isNew = !known.has(id) && claims.claim(id);
    meter.mark('hash');
    if (isNew) {
      this.#store(id, data);
      meter.count('newChunks', 1);
      meter.count('new', data.length);
    } else meter.count('knownChunks', 1);
    return id;
  }

  #store(id: Buffer, data: Buffer): void {
    const { sealer, packer, meter } = this.#parts;
    const stored = sealer.compress(data, this.#parts.level());
    meter.mark('compress');
    const length = stored.length + SEAL_OVERHEAD_BYTES;
    const room = packer.reserve(length);
    meter.mark('upload'); // time here is time waited for a free pack buffer
    sealer.seal('data', id, stored, data.length, room);
    meter.mark('seal');
    if (this.#parts.random.fraction() < this.#parts.checkShare()) {
      this.#check(id, room, data);
      meter.mark('check');
    }
    if (stored !== data) freeBuffer(stored);
    packer.add(length);
    meter.mark('seal');
  }

  /** A fault of the compressor, of the cipher or of memory must not become a backup. */
  #check(id: Buffer, sealed: Buffer, data: Buffer): void {
    const { namer, sealer } = this.#parts;
    const { content } = sealer.open(sealed);
    const same = content.equals(data) && namer.matches('data', content, id);
    freeBuffer(content);
    if (same) return;
    throw new HoldfastError(
      'damaged',
      `A chunk of ${data.length / PAGE_BYTES} pages did not come back as it was sealed`,
      {
        remedy: 'Nothing was committed. Test this machine’s memory, then run the backup again',
      },
    );
  }
}
