import { timingSafeEqual } from 'node:crypto';
import { KeyedHash } from './keyed-hash.ts';
import { hashPages, pagesOf } from './page.ts';
import { HASH_BYTES } from './parameters.ts';

/** What a chunk holds: pages of disk, or a node of an image tree. The number is part of its id. */
export const CHUNK_KINDS = { data: 1, node: 2 } as const;
export type ChunkKind = keyof typeof CHUNK_KINDS;

/** Makes chunk ids: 32 bytes that name content within one vault and tell nothing outside it. */
export class ChunkNamer {
  readonly #code: KeyedHash;
  #hashes = Buffer.alloc(128 * HASH_BYTES);

  constructor(idKey: Uint8Array) {
    this.#code = new KeyedHash(idKey);
  }

  /** The id of a data chunk from the hashes of its pages, in order. */
  ofPageHashes(hashes: Uint8Array): Buffer {
    return this.#code.digest(CHUNK_KINDS.data, hashes);
  }

  /** The id of a chunk from its content. */
  ofContent(kind: ChunkKind, content: Buffer): Buffer {
    if (kind === 'node') return this.#code.digest(CHUNK_KINDS.node, content);
    const bytes = pagesOf(content.length) * HASH_BYTES;
    if (this.#hashes.length < bytes) this.#hashes = Buffer.alloc(bytes);
    const hashes = this.#hashes.subarray(0, bytes);
    hashPages(content, hashes);
    return this.ofPageHashes(hashes);
  }

  /** True if the content is what the id names. */
  matches(kind: ChunkKind, content: Buffer, id: Uint8Array): boolean {
    return timingSafeEqual(this.ofContent(kind, content), id);
  }
}
