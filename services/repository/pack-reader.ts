import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import type { Blobs } from '#ports/blobs.ts';
import type { ChunkNamer } from './chunk.ts';
import type { ChunkLocation, IndexedPack } from './index-segment.ts';
import { remember } from './lru.ts';
import { packKey } from './names.ts';
import { PACK_TRAILER_BYTES, type PackSlot, parsePackFooter, parsePackTrailer } from './pack.ts';
import type { Sealer } from './seal.ts';

/** Footers kept: 32 packs of 24 MiB reach over some 2 GB of disk. */
const FOOTERS_MAX = 32;
/** A pack up to this size is fetched whole for one chunk: it is a pack of nodes, and its others are wanted next. */
const WHOLE_PACK_MAX_BYTES = 8 * 1024 * 1024;
const WHOLE_PACKS_MAX = 4;

/** Fetches and opens single chunks. Used for nodes, for random reads, and to find out where a chunk lies. */
export class PackReader {
  readonly #blobs: Blobs;
  readonly #sealer: Sealer;
  readonly #namer: ChunkNamer;
  readonly #locate: (id: Buffer) => Iterable<ChunkLocation>;
  readonly #footers = new Map<string, Promise<readonly PackSlot[]>>();
  readonly #packs = new Map<string, Promise<Uint8Array>>();
  fetchedBytes = 0;

  /** @param locate  all places the index knows for an id */
  constructor(blobs: Blobs, sealer: Sealer, namer: ChunkNamer, locate: (id: Buffer) => Iterable<ChunkLocation>) {
    this.#blobs = blobs;
    this.#sealer = sealer;
    this.#namer = namer;
    this.#locate = locate;
  }

  /**
   * Where a chunk lies, from the first of its places whose footer agrees.
   * Throws `missing` if the index does not know it, or what a place failed with: a failure of the store if there was one.
   */
  async find(id: Buffer): Promise<{ readonly pack: IndexedPack; readonly slot: PackSlot }> {
    return await this.#firstPlace(id, async (place) => place);
  }

  /** A chunk's content, checked against its id. Tries every place that the index knows. */
  async read(id: Buffer): Promise<Buffer> {
    return await this.#firstPlace(id, async ({ pack, slot }) => {
      const { header, content } = this.#sealer.open(await this.#sealed(pack, slot));
      if (!header.id.equals(id) || !this.#namer.matches(header.kind, content, id))
        throw damaged(id, pack, 'its content is not what its id names');
      return content;
    });
  }

  /** A pack's slots, from its footer. Throws `missing` or `damaged`. */
  slots(pack: IndexedPack): Promise<readonly PackSlot[]> {
    const key = packKey(pack.id);
    return remember(this.#footers, key, FOOTERS_MAX, async () => {
      const length = pack.sizeBytes - pack.footerOffset;
      const tail = Buffer.from(await this.#fetch(key, pack.footerOffset, length));
      const { sha256 } = parsePackTrailer(tail.subarray(length - PACK_TRAILER_BYTES), pack.sizeBytes);
      return parsePackFooter(tail.subarray(0, length - PACK_TRAILER_BYTES), pack.footerOffset, sha256);
    });
  }

  async #firstPlace<T>(
    id: Buffer,
    use: (place: { readonly pack: IndexedPack; readonly slot: PackSlot }) => Promise<T>,
  ): Promise<T> {
    let failure: unknown;
    for (const { pack, slot: number } of this.#locate(id)) {
      try {
        const slot = (await this.slots(pack))[number];
        if (!slot?.id.equals(id)) throw damaged(id, pack, 'the index and the pack’s footer disagree');
        return await use({ pack, slot });
      } catch (error) {
        // What the store could not answer now may be whole: it outranks what another place has lost.
        const isLoss = isHoldfastError(error, 'damaged') || isHoldfastError(error, 'missing');
        if (failure === undefined || !isLoss) failure = error;
      }
    }
    throw (
      failure ??
      new HoldfastError('missing', `Chunk ${id.toString('hex').slice(0, 16)} is in no pack that the index knows`, {
        data: { chunk: id.toString('hex') },
        remedy: 'Run `vault verify` to see which points are affected',
      })
    );
  }

  async #sealed(pack: IndexedPack, slot: PackSlot): Promise<Uint8Array> {
    const key = packKey(pack.id);
    if (pack.sizeBytes > WHOLE_PACK_MAX_BYTES) return this.#fetch(key, slot.offset, slot.length);
    const bytes = await remember(this.#packs, key, WHOLE_PACKS_MAX, () => this.#fetch(key, 0, pack.sizeBytes));
    return bytes.subarray(slot.offset, slot.offset + slot.length);
  }

  async #fetch(key: string, offset: number, length: number): Promise<Uint8Array> {
    const bytes = await this.#blobs.getRange(key, offset, length);
    this.fetchedBytes += length;
    return bytes;
  }
}

function damaged(id: Buffer, pack: IndexedPack, why: string): HoldfastError {
  return new HoldfastError(
    'damaged',
    `Chunk ${id.toString('hex').slice(0, 16)} in ${packKey(pack.id)} is damaged: ${why}`,
    {
      data: { chunk: id.toString('hex'), key: packKey(pack.id) },
    },
  );
}
